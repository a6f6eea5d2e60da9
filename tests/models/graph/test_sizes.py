"""Shape arithmetic under `jax.export` with a symbolic batch: sizes stay sizes, and become data only next to data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from onnx import TensorProto, helper, numpy_helper

from modeldiff_jax.models.graph.sizes import as_sizes, is_sizes, settle, traced_sizes
from tests.models.onnx.helpers import assert_same, convert, expected, whole

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs.split(), outputs.split(), **attrs)


def model_of(nodes, **constants):
    """A model of x: (n, 3, 4) -> y."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 3, 4])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    return whole(graph, 17)


def i64(*values):
    return np.asarray(values, np.int64)


SHAPE = node("Shape", "x", "s")
GRAPHS = {
    "gathered and concatenated": model_of(
        [
            SHAPE,
            node("Gather", "s zero", "n"),
            node("Unsqueeze", "n axis", "n1"),
            node("Concat", "n1 rest", "t", axis=0),
            node("Reshape", "x t", "y"),
        ],
        zero=np.int64(0), axis=i64(0), rest=i64(-1),
    ),
    "multiplied out": model_of(
        [
            SHAPE,
            node("Slice", "s a b", "front"),
            node("ReduceProd", "front", "rows", axes=[0]),
            node("Concat", "rows four", "t", axis=0),
            node("Reshape", "x t", "y"),
        ],
        a=i64(0), b=i64(2), four=i64(4),
    ),
    "divided": model_of(
        [
            node("Size", "x", "k"),
            node("Div", "k twelve", "n"),
            node("Unsqueeze", "n axis", "n1"),
            node("Concat", "n1 rest", "t", axis=0),
            node("Cast", "t", "u", to=INT64),
            node("Reshape", "x u", "y"),
        ],
        twelve=np.int64(12), axis=i64(0), rest=i64(12),
    ),
    "split and squeezed": model_of(
        [
            SHAPE,
            node("Split", "s", "n c w", axis=0),
            node("Squeeze", "n axis", "n0"),
            node("Unsqueeze", "n0 axis", "n1"),
            node("Mul", "c w", "cw"),
            node("Concat", "n1 cw", "t", axis=0),
            node("Reshape", "x t", "y"),
        ],
        axis=i64(0),
    ),
    "expanded as PyTorch writes it": model_of(
        [
            SHAPE,
            node("Equal", "want minus", "free"),
            node("Where", "free s want", "t"),
            node("Expand", "token t", "e"),
            node("Add", "x e", "y"),
        ],
        want=i64(-1, 3, 4), minus=i64(-1), token=np.ones((1, 3, 4), np.float32),
    ),
    "filled, tiled and counted": model_of(
        [
            SHAPE,
            node("ConstantOfShape", "s", "zeros"),
            node("Gather", "s zero", "n"),
            node("Range", "zero n one", "i"),
            node("Cast", "i", "f", to=FLOAT),
            node("Reshape", "f column", "fc"),
            node("Unsqueeze", "n axis", "n1"),
            node("Concat", "n1 ones", "times", axis=0),
            node("Tile", "row times", "tiled"),
            node("Sum", "zeros fc tiled x", "y"),
        ],
        zero=np.int64(0), one=np.int64(1), axis=i64(0), ones=i64(1, 1), column=i64(-1, 1, 1),
        row=np.ones((1, 3, 4), np.float32),
    ),
    "a mean by hand": model_of(
        [
            SHAPE,
            node("Gather", "s zero", "n"),
            node("Cast", "n", "f", to=FLOAT),
            node("ReduceSum", "x axis", "total"),
            node("Div", "total f", "y"),
        ],
        zero=np.int64(0), axis=i64(0),
    ),
    "sliced to its own size": model_of(
        [
            SHAPE,
            node("Slice", "s a b", "n"),
            node("Slice", "x a n", "front"),
            node("Slice", "front a far", "y"),
        ],
        a=i64(0), b=i64(1), far=i64(2**63 - 1),
    ),
    "the other axes are plain numbers": model_of(
        [
            SHAPE,
            node("Slice", "s a b", "cw"),
            node("Cast", "cw", "f", to=FLOAT),
            node("Mul", "f half", "h"),
            node("Floor", "h", "hf"),
            node("Cast", "hf", "t", to=INT64),
            node("ConstantOfShape", "t", "zeros"),
            node("ReduceSum", "zeros", "z", keepdims=0),
            node("Add", "x z", "y"),
        ],
        a=i64(1), b=i64(3), half=np.float32(0.5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_one_export_serves_every_batch(name):
    model = convert(GRAPHS[name])
    (batch,) = export.symbolic_shape("batch")
    exported = export.export(jax.jit(model.apply))(model.params, jax.ShapeDtypeStruct((batch, 3, 4), jnp.float32))
    for n in (1, 2, 5):
        x = np.random.default_rng(n).standard_normal((n, 3, 4)).astype(np.float32)
        assert_same(exported.call(model.params, x), expected(GRAPHS[name], {"x": x}))


def test_plain_sizes_are_int64():
    assert as_sizes((2, 3)).dtype == np.int64
    assert settle(np.array([2, 3], object)).dtype == np.int64
    assert settle(np.array([True, False], object)).dtype == bool


def test_settled_results_are_arrays():
    for value in (3, 2.5, np.float32(1), True):
        assert isinstance(settle(value), np.ndarray)
    strings = np.array(["a", "b"], object)
    assert settle(strings) is strings
    assert not is_sizes(strings)


def test_sizes_become_data():
    (batch,) = export.symbolic_shape("batch")

    def f(x):
        sizes = as_sizes(x.shape)
        assert is_sizes(sizes)
        assert isinstance(settle(sizes[0] * 2), np.ndarray)
        return traced_sizes(sizes)

    exported = export.export(jax.jit(f))(jax.ShapeDtypeStruct((batch, 4), jnp.float32))
    np.testing.assert_array_equal(exported.call(np.zeros((3, 4), np.float32)), [3, 4])
