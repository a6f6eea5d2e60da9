"""A dialect of three operators goes through folding, tracing, layout and family digest, with no ONNX code anywhere."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modeldiff_jax.errors import UnsupportedModelError
from modeldiff_jax.limits import DEFAULT
from modeldiff_jax.models.convert import source_of, to_model
from modeldiff_jax.models.family import united
from modeldiff_jax.models.graph.channels import ChannelAxes
from modeldiff_jax.models.graph.ir import Graph, Node
from modeldiff_jax.models.graph.passes.fold import fold
from modeldiff_jax.models.graph.registry import Static, op
from modeldiff_jax.models.graph.traits import declare
from modeldiff_jax.models.graph.values import Value
from modeldiff_jax.models.model import Origin
from modeldiff_jax.types import TensorSpec

TOY = "toy"
RNG = np.random.default_rng(0)
FILTERS = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)  # (taps, taps, outputs, inputs): no order of ONNX's


@op("FILTER", domain=TOY)
def filtered(x: Value, filters: Value, /, *, stride: int = 1) -> Value:
    """A convolution of (N, C, H, W) by filters (outputs, height, width, inputs)."""
    return jax.lax.conv_general_dilated(
        x, filters, (stride, stride), "VALID", dimension_numbers=("NCHW", "OHWI", "NCHW")
    )


@op("SCALE", domain=TOY)
def scale_by_one(x: Value, factor: Value, /) -> Value:
    """The first version: it takes the factor as it is."""
    return x * factor


@op("SCALE", domain=TOY, since=3)
def scale(x: Value, factor: Value, /, *, inverse: bool = False) -> Value:
    """The product with a factor, or with its inverse."""
    return x / factor if inverse else x * factor


@op("EXTENT", domain=TOY)
def extent(x: Value, axis: Static, /) -> Value:
    """The size of one axis."""
    return np.asarray(x.shape[int(axis)], np.int64)


declare(TOY, "FILTER", channel_axis=1, weight_order=lambda position, rank, _: (1, 2, 3, 0) if position == 1 else None)
declare(TOY, "SCALE", elementwise=lambda attributes: True)
declare(TOY, "EXTENT", reads_shapes=True)


def node(name, inputs, outputs, version=3, **attributes):
    return Node(name, TOY, version, "", tuple(inputs.split()), tuple(outputs.split()), attributes)


def graph(filters=FILTERS, prefix="", version=3):
    """y = x filtered / (2 * 3) * its number of channels, where 2 * 3 is folded; names begin with `prefix`."""

    def named(text):
        return " ".join(prefix + name for name in text.split())

    nodes = (
        node("SCALE", named("two three"), named("six"), version),
        node("FILTER", named("x f"), named("h"), version, stride=2),
        node("SCALE", named("h six"), named("s"), 3, inverse=True),
        node("EXTENT", named("h one"), named("c"), version),
        node("SCALE", named("s c"), named("y"), version),
    )
    constants = {
        prefix + "f": filters,
        prefix + "two": np.full((1, 4, 1, 1), 2, np.float32),
        prefix + "three": np.float32([3]),
        prefix + "one": np.asarray(1),
    }
    inputs = (TensorSpec(prefix + "x", ("n", 3, 9, 9), np.dtype(np.float32)),)
    outputs = (TensorSpec(prefix + "y", ("n", 4, 4, 4), np.dtype(np.float32)),)
    return Graph("toy", nodes, inputs, outputs, {TOY: 3}, constants)


def converted(*args, **kwargs):
    return to_model(graph(*args, **kwargs), Origin("toy", TOY), DEFAULT)


def expected(x, filters=FILTERS):
    return np.asarray(filtered(x, filters, stride=2)) / 6 * 4


def test_it_is_folded_and_traced():
    folded = fold(graph(), DEFAULT)
    assert [n.op for n in folded.graph.nodes] == ["FILTER", "SCALE", "EXTENT", "SCALE"]
    x = RNG.standard_normal((2, 3, 9, 9)).astype(np.float32)
    model = converted()
    np.testing.assert_allclose(model(x), expected(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.eager(x), expected(x), rtol=1e-5, atol=1e-5)
    assert np.isfinite(jax.grad(lambda x: jnp.sum(model.apply(model.params, x)))(jnp.asarray(x))).all()


def test_filters_are_kept_as_the_kernel_reads_them():
    model = converted()
    assert model.params["f"].shape == (3, 3, 3, 4)
    assert source_of(model.apply).orders == {"f": (1, 2, 3, 0)}


def test_elementwise_operators_follow_the_kernels_channels():
    axes = ChannelAxes()
    for each in fold(graph(), DEFAULT).graph.nodes:
        axis = axes.of_inputs(each)
        assert axis == (1 if each.op == "SCALE" else None)
        axes.propagate(each, axis)


def test_models_that_differ_in_weights_and_names_are_one_family():
    other = RNG.standard_normal(FILTERS.shape).astype(np.float32)
    first, second = united([converted(), converted(other, "other.")])
    assert first.apply is second.apply
    x = RNG.standard_normal((2, 3, 9, 9)).astype(np.float32)
    np.testing.assert_allclose(second(x), expected(x, other), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"op": "PRODUCT"}, "toy.PRODUCT at version 3"),
        ({"domain": "toys"}, "unknown domain toys"),
        ({"attributes": {"round": True}}, "attribute round on toy.SCALE at version 3"),
    ],
)
def test_what_is_unknown_is_named(change, said):
    whole = graph()
    broken = replace(whole, nodes=(replace(whole.nodes[0], **change), *whole.nodes[1:]))
    with pytest.raises(UnsupportedModelError, match=said):
        to_model(broken, Origin("toy", TOY), DEFAULT)


def test_an_attribute_of_a_later_version_is_unknown_to_an_earlier_one():
    whole = graph(version=2)
    assert converted(version=2) is not None
    early = replace(whole.nodes[0], version=2, attributes={"inverse": True})
    with pytest.raises(UnsupportedModelError, match="inverse"):
        to_model(replace(whole, nodes=(early, *whole.nodes[1:])), Origin("toy", TOY), DEFAULT)


def test_no_code_of_onnx_is_imported():
    code = (
        "import sys; from tests.models.graph import test_dialect as toy; toy.converted();"
        "sys.exit(any(name == 'onnx' or name.startswith('modeldiff_jax.models.onnx') for name in sys.modules))"
    )
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
