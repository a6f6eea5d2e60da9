"""Operators after padded rows: right if they work row by row, refused if they do not."""

import jax
import numpy as np
import pytest
from onnx import helper

from modeldiff_jax.errors import NotStaticError, UnsupportedModelError
from tests.helpers.onnx_graphs import branch, model, node, tensor, value
from tests.models.onnx.helpers import convert, expected

SIZE = 8
RNG = np.random.default_rng(3)
X = RNG.standard_normal((6, 4, 3)).astype(np.float32)


def after(nodes, constants, outputs=("y",), opset=17):
    """A model that keeps the rows `r` of `x` (6, 4, 3) whose first value is positive, then runs the nodes."""
    keep = [
        node("Gather", "x first_", "c0", axis=1),
        node("Gather", "c0 first_", "c1", axis=1),
        node("Greater", "c1 zero_", "keep"),
        node("Compress", "x keep", "r", axis=0),
    ]
    initializers = [tensor("first_", np.int64(0)), tensor("zero_", np.float32(0))]
    initializers += [tensor(name, array) for name, array in constants.items()]
    inputs = [value("x", (6, 4, 3))]
    made = [helper.make_empty_tensor_value_info(name) for name in outputs]
    return model([*keep, *nodes], inputs, made, initializers, opset)


def one(op, inputs="r", outputs="y", constants=None, opset=17, **attributes):
    return after([node(op, inputs, outputs, **attributes)], constants or {}, outputs.split(), opset)


def floats(*shape):
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


# what follows, and the axis on which its rows lie
RIGHT = {
    "unary": (one("Sigmoid"), 0),
    "clip": (one("Clip", "r a b", constants={"a": np.float32(-0.5), "b": np.float32(0.5)}), 0),
    "beside one for all": (one("Add", "r a", constants={"a": floats(4, 3)}), 0),
    "beside a longer shape": (one("Mul", "r a", constants={"a": floats(2, 1, 4, 3)}), 1),
    "rows beside rows": (after([node("Exp", "r", "e"), node("Sub", "e r", "y")], {}), 0),
    "choice": (after([node("Less", "r a", "c"), node("Where", "c r a", "y")], {"a": np.float32(0)}), 0),
    "transposed": (one("Transpose", perm=[1, 0, 2]), 1),
    "turned": (one("Transpose"), 2),
    "sum over a later axis": (one("ReduceSum", "r a", constants={"a": np.int64([1])}, keepdims=0), 0),
    "mean over both": (one("ReduceMean", axes=[-1, 1], keepdims=1), 0),
    "reduced before": (after([node("Transpose", "r", "t"), node("ReduceMax", "t", "y", axes=[0], keepdims=0)], {}), 1),
    "largest": (one("ArgMax", axis=1, keepdims=0), 0),
    "softmax": (one("Softmax", axis=-1), 0),
    "old softmax": (one("Softmax", axis=1, opset=11), 0),
    "normalised": (one("LayerNormalization", "r a b", constants={"a": floats(3), "b": floats(3)}, axis=-1), 0),
    "best two": (one("TopK", "r a", "y z", {"a": np.int64([2])}, axis=1), 0),
    "running sum": (one("CumSum", "r a", constants={"a": np.int64(1)}), 0),
    "split": (one("Split", "r", "y z", axis=1), 0),
    "cut": (one("Slice", "r a b c", constants={"a": np.int64([1]), "b": np.int64([3]), "c": np.int64([1])}), 0),
    "column": (one("Gather", "r a", constants={"a": np.int64(2)}, axis=1), 0),
    "columns": (one("Gather", "r a", constants={"a": np.int64([[2, 0]])}, axis=-1), 0),
    "column before the rows": (
        after([node("Transpose", "r", "t"), node("Gather", "t a", "y", axis=0)], {"a": np.int64([1, 0])}), 2,
    ),
    "product with a matrix": (one("MatMul", "r a", constants={"a": floats(3, 5)}), 0),
    "product with a vector": (one("MatMul", "r a", constants={"a": floats(3)}), 0),
    "flat": (one("Flatten"), 0),
    "dense": (
        after([node("Flatten", "r", "f"), node("Gemm", "f a b", "y", transB=1)], {"a": floats(2, 12), "b": floats(2)}),
        0,
    ),
    "reshaped by 0": (one("Reshape", "r a", constants={"a": np.int64([0, -1])}), 0),
    "reshaped by -1": (one("Reshape", "r a", constants={"a": np.int64([-1, 2, 6])}), 0),
    "squeezed": (
        after([node("Slice", "r b a b", "s"), node("Squeeze", "s b", "y")], {"a": np.int64([2]), "b": np.int64([1])}),
        0,
    ),
    "unsqueezed": (one("Unsqueeze", "r a", constants={"a": np.int64([0, 3])}), 1),
    "side by side": (after([node("Neg", "r", "n"), node("Concat", "r n", "y", axis=2)], {}), 0),
    "convolution": (
        after([node("Unsqueeze", "r a", "u"), node("Conv", "u w", "y")], {"a": np.int64([1]), "w": floats(2, 1, 2, 2)}),
        0,
    ),
    "its shape": (one("Shape"), None),
    "its last sizes": (one("Shape", start=1), None),
    "its size": (one("Size"), None),
    "one hot": (
        after(
            [node("ArgMax", "r", "i", axis=1, keepdims=0), node("OneHot", "i a b", "y", axis=0)],
            {"a": np.int64(4), "b": np.float32([0, 1])},
        ),
        1,
    ),
}  # fmt: skip


def inputs(seed):
    return np.random.default_rng(seed).standard_normal((6, 4, 3)).astype(np.float32)


@pytest.mark.parametrize("case", RIGHT)
def test_row_by_row_it_is_right(case):
    proto, axis = RIGHT[case]
    bounded = convert(proto).bounded(SIZE)
    for seed in range(2):
        x = inputs(seed)
        *output, mask, count = bounded(x)
        assert count == np.count_nonzero(x[:, 0, 0] > 0) == np.count_nonzero(mask)
        for got, want in zip(output, expected(proto, {"x": x}), strict=True):
            if axis is None:
                np.testing.assert_array_equal(got, want)
                continue
            assert got.shape == tuple(SIZE if i == axis else n for i, n in enumerate(want.shape))
            kept, padding = np.split(np.asarray(got), [int(count)], axis)
            np.testing.assert_allclose(kept, want, rtol=1e-5, atol=1e-6)
            assert not padding.any()


@pytest.mark.parametrize("size", [2, SIZE])
def test_at_the_places_that_were_found(size):
    nodes = [
        node("Greater", "x zero", "big"),
        node("NonZero", "big", "at"),
        node("Transpose", "at", "places"),
        node("GatherND", "x places", "values"),
        node("Gather", "places column", "row", axis=1),
        node("Gather", "table row", "entries", axis=0),
        node("Unsqueeze", "values last", "v"),
        node("Concat", "v entries", "y", axis=1),
    ]
    constants = {"zero": np.float32(1), "column": np.int64(0), "table": floats(6, 2), "last": np.int64([1])}
    proto = model(
        nodes, [value("x", (6, 4))], [value("y", None)], [tensor(name, array) for name, array in constants.items()]
    )
    bounded = convert(proto).bounded({"at": size})
    batch = np.stack([inputs(seed)[..., 0] for seed in range(3)])
    together = jax.jit(jax.vmap(lambda x: bounded.apply(bounded.params, x)))(batch)
    for x, y, mask, count in zip(batch, *together, strict=True):
        (want,) = expected(proto, {"x": x})
        assert count == len(want)
        np.testing.assert_allclose(y[mask], want[:size], rtol=1e-6)
        assert not np.asarray(y)[~np.asarray(mask)].any()


ROWS = np.int64([0])
REFUSED = {
    "sum over the rows": one("ReduceSum", "r a", constants={"a": ROWS}),
    "mean over everything": one("ReduceMean"),
    "softmax over the rows": one("Softmax", axis=0),
    "old softmax over the rows": one("Softmax", axis=0, opset=11),
    "running sum over the rows": one("CumSum", "r a", constants={"a": np.int64(0)}),
    "largest row": one("ArgMax", axis=0),
    "best rows": one("TopK", "r a", "y z", {"a": np.int64([2])}, axis=0),
    "rows one after another": after([node("Neg", "r", "n"), node("Concat", "r n", "y", axis=0)], {}),
    "beside as many rows of another kind": one("Add", "r a", constants={"a": floats(SIZE, 1, 1)}),
    "scaled by as many rows": one("LayerNormalization", "r a", constants={"a": floats(SIZE, 4, 3)}, axis=-1),
    "in a shape that counts them": one("Reshape", "r a", constants={"a": np.int64([SIZE, 12])}),
    "rows and columns mixed": one("Reshape", "r a", constants={"a": np.int64([-1, 3])}),
    "rows cut off": one("Slice", "r a b", constants={"a": np.int64([1]), "b": np.int64([3])}),
    "one row": one("Gather", "r a", constants={"a": np.int64(0)}, axis=0),
    "product over the rows": after(
        [node("Transpose", "r", "t", perm=[1, 2, 0]), node("MatMul", "t a", "y")], {"a": floats(SIZE, 2)}
    ),
    "second factor": one("MatMul", "a r", constants={"a": floats(2, 4)}),
    "put somewhere": after(
        [node("Cast", "r", "i", to=7), node("ScatterND", "a i b", "y")],
        {"a": floats(9, 9, 9), "b": floats(SIZE, 4)},
    ),
    "repeated": one("Tile", "r a", constants={"a": np.int64([2, 1, 1])}),
    "rows of rows": one("NonZero"),
    "no axes to squeeze": one("Squeeze"),
    "in a branch": after(
        [node("If", "yes", "y", then_branch=branch([node("Exp", "r", "p")], "p", "p"),
              else_branch=branch([node("Neg", "r", "q")], "q", "q"))],
        {"yes": np.array(True)},
    ),
    "rows of two kinds": after(
        [node("Unique", "flat", "u"), node("Unsqueeze", "u a", "v"), node("Add", "r v", "y")],
        {"a": np.int64([1, 2])},
    ),
}  # fmt: skip
REFUSED["rows of two kinds"].graph.node.insert(0, node("Flatten", "x", "flat"))


@pytest.mark.parametrize("case", REFUSED)
def test_what_could_see_the_padding_is_refused(case):
    bounded = convert(REFUSED[case]).bounded(SIZE)
    with pytest.raises(UnsupportedModelError, match="row by row"):
        bounded(X)


def test_a_shape_made_of_the_number_of_rows_is_refused():
    proto = after([node("Shape", "r", "s"), node("ConstantOfShape", "s", "y")], {})
    with pytest.raises(NotStaticError, match="ConstantOfShape"):
        convert(proto).bounded(SIZE)(X)
