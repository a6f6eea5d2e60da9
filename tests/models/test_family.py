"""Models that are one program with other weights are distinguished from models that only resemble one another."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.convert import to_model
from modeldiff_jax.models.family import structure, united
from modeldiff_jax.models.flax import from_flax
from modeldiff_jax.models.model import Origin
from modeldiff_jax.models.onnx import read_graph
from tests.helpers.onnx_graphs import model, node, tensor, value
from tests.models.test_flax import IMAGES, Linen, build, linen_variables

X = np.random.default_rng(9).standard_normal((4, 1, 8, 8)).astype(np.float32)


def loaded(proto, limits=DEFAULT):
    return to_model(read_graph(proto.SerializeToString()), Origin("m", "onnx"), limits)


def network(seed=0, prefix="", filters=5, pads=(1, 1, 1, 1), limit=0.5, shape=(0, -1), opset=17, op="Sigmoid"):
    """A convolution, a clipped activation and a dense layer; `prefix` precedes every name but the input's."""
    rng = np.random.default_rng(seed)
    weights = {
        "w": rng.standard_normal((filters, 1, 3, 3)) / 3,
        "b": rng.standard_normal(filters) / 3,
        "m": rng.standard_normal((3, filters * (36 if pads == (0, 0, 0, 0) else 64))) / 8,
    }
    constants = [tensor(prefix + name, array.astype(np.float32)) for name, array in weights.items()]
    constants += [tensor(prefix + "limit", np.float32(limit)), tensor(prefix + "shape", np.int64(shape))]

    def named(op, inputs, output, **attributes):
        names = " ".join(name if name in ("x", '""') else prefix + name for name in inputs.split())
        made = node(op, names.replace('""', ""), prefix + output, **attributes)
        made.name = prefix + op
        return made

    nodes = [
        named("Conv", "x w b", "c", pads=pads),
        named(op, "c", "s"),
        named("Min", "s limit", "r"),
        named("Reshape", "r shape", "f"),
        named("Gemm", "f m", "y", transB=1),
    ]
    return model(nodes, [value("x", ("n", 1, 8, 8))], [value(prefix + "y", ("n", 3))], constants, opset)


def share(one, two):
    one, two = united([one, two])
    return one.apply is two.apply and structure(one.params) == structure(two.params)


@pytest.mark.parametrize("prefix", ["", "other/"])
def test_other_weights_and_other_names_are_one_family(prefix):
    one, two = loaded(network(0)), loaded(network(1, prefix))
    assert (one.apply is two.apply) == (not prefix)
    assert share(one, two)
    first, second = united([one, two])
    assert first is one
    np.testing.assert_array_equal(second(X), two(X))
    assert np.abs(second(X) - first(X)).max() > 0.01


@pytest.mark.parametrize(
    "change",
    [
        {"op": "Tanh"},
        {"pads": (0, 0, 0, 0)},
        {"limit": 0.25},
        {"shape": (-1, 320)},
        {"opset": 16},
        {"filters": 6},
    ],
    ids=lambda change: "".join(change),
)
def test_other_programs_are_other_families(change):
    one, two = loaded(network(0)), loaded(network(0, "other/", **change))
    assert not share(one, two)
    for model_ in united([one, two]):
        np.testing.assert_array_equal(model_(X), (one if model_ is one else two)(X))


def test_limits_are_part_of_the_program():
    assert not share(loaded(network(0)), loaded(network(1, "other/"), Limits(loop_trips=5)))


def test_wiring_counts():
    def difference(first, second):
        weights = [tensor("a", np.float32([1, 2])), tensor("b", np.float32([3, 5]))]
        return loaded(model([node("Mul", "x a", "p"), node("Mul", "x b", "q"), node("Sub", f"{first} {second}", "y")],
                            initializers=weights))  # fmt: skip

    assert share(difference("p", "q"), difference("p", "q"))
    assert not share(difference("p", "q"), difference("q", "p"))


def test_strings_and_tables_that_tracing_sees_count():
    def lookup(table):
        return loaded(model([node("Gather", "w table", "y", axis=0), node("Mul", "y x", "z")],
                            outputs=[value("z")], initializers=[tensor("table", np.int64(table))],
                            inputs=[value("x"), value("w", (4,))]))  # fmt: skip

    assert share(lookup([0, 1]), lookup([0, 1]))
    assert not share(lookup([0, 1]), lookup([0, 2]))


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_flax_models_of_equal_modules_are_one_family(kind):
    assert share(build(kind, 0), build(kind, 1))
    assert not share(build(kind, 0), build(kind, 0, classes=4))


def test_one_module_at_other_sizes_is_another_family():
    wide = linen_variables()
    wide["params"]["Dense_0"] = {name: jnp.tile(leaf, 2) for name, leaf in wide["params"]["Dense_0"].items()}
    assert structure(wide) != structure(linen_variables())
    small = from_flax(Linen(3), linen_variables(), IMAGES)
    assert not share(small, replace(small, params=wide))


def test_a_function_of_somebodys_own_is_left_alone():
    one = loaded(network(0))
    doubled = replace(loaded(network(1)), apply=lambda params, x: 2 * one.apply(params, x))
    extra = replace(loaded(network(1, "other/")), params={"what": jnp.ones(3)})
    assert united([one, doubled, extra]) == (one, doubled, extra)
