"""Shape, layout and element type against onnxruntime."""

import jax
import numpy as np
import pytest
from onnx import TensorProto, helper

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.onnx.ops import tensor
from tests.models.onnx.helpers import check_node, check_transforms, convert, node_model

X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
IMAGE = np.random.default_rng(1).standard_normal((1, 8, 4, 6)).astype(np.float32)


def ints(*values):
    return np.asarray(values, np.int64)


FLOATS = np.float32([-2.5, -1, -0.0, 0.4, 1.6, 100])


@pytest.mark.parametrize(("x", "to"), [
    (FLOATS, TensorProto.INT32), (FLOATS, TensorProto.INT64), (FLOATS, TensorProto.BOOL), (FLOATS, TensorProto.FLOAT16),
    (np.int64([-1, 0, 300]), TensorProto.FLOAT), (np.int32([-1, 0, 300]), TensorProto.UINT8),
    (np.int32([-1, 0, 300]), TensorProto.INT8), (np.array([True, False]), TensorProto.FLOAT),
    (np.float16([1.5, -2]), TensorProto.FLOAT), (np.uint8([0, 255]), TensorProto.INT64),
    (np.float32([-9, 300, 70000.5]), TensorProto.UINT8), (np.float32([-9, 300, 70000.5]), TensorProto.INT8),
    (np.float32([-9, 70000.5]), TensorProto.UINT16), (np.float16([-9, 300]), TensorProto.INT8),
])  # fmt: skip
def test_cast(x, to):
    check_node("Cast", [x], {"to": to}, opset=13)


def test_cast_names_the_type_before_opset_6():
    check_node("Cast", [FLOATS], {"to": "INT32"}, 1, want=[FLOATS.astype(np.int32)])


@pytest.mark.parametrize(("to", "want"), [(TensorProto.INT4, [7, -8, 1]), (TensorProto.UINT4, [7, 8, 1])])
def test_cast_to_four_bits_keeps_the_lowest_ones(to, want):
    want = np.asarray(want, helper.tensor_dtype_to_np_dtype(to))
    check_node("Cast", [np.float32([-9, 8.5, 17])], {"to": to}, opset=21, want=[want])


@pytest.mark.parametrize(("saturate", "want"), [(1, [448.0, -448.0, 1.0]), (0, [np.nan, np.nan, 1.0])])
def test_cast_to_eight_bits(saturate, want):
    import ml_dtypes

    model = convert(node_model("Cast", [FLOATS[:3]], {"to": TensorProto.FLOAT8E4M3FN, "saturate": saturate}, 19))
    got = model.apply(model.params, np.float32([1e5, -1e5, 1.01]))
    assert got.dtype == ml_dtypes.float8_e4m3fn
    np.testing.assert_array_equal(np.asarray(got, np.float32), np.float32(want))


@pytest.mark.parametrize(("mode", "want"), [("up", [4, 4, 0.5]), ("down", [4, 2, 0.25]), ("nearest", [4, 4, 0.25])])
def test_cast_to_powers_of_two(mode, want):
    want = np.float32([*want, 2.0**-127, np.nan]).astype(helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E8M0))
    attrs = {"to": TensorProto.FLOAT8E8M0, "round_mode": mode}
    model = convert(node_model("Cast", [FLOATS[:5]], attrs, 24))
    for run in (model.apply, jax.jit(model.apply)):
        got = run(model.params, np.float32([4, 3, 0.3, 0, np.inf]))
        np.testing.assert_array_equal(np.asarray(got).view(np.uint8), want.view(np.uint8))


def test_cast_like():
    check_node("CastLike", [FLOATS, np.int32([1])], opset=15)


@pytest.mark.parametrize(("shape", "attrs", "opset"), [
    (ints(4, 6), {}, 5), (ints(0, -1), {}, 13), (ints(-1), {}, 13), (ints(2, 0, 2, 2), {}, 14), (ints(24, 1), {}, 21),
])  # fmt: skip
def test_reshape(shape, attrs, opset):
    check_node("Reshape", [X, shape], attrs, opset)


def test_reshape_allows_zero():
    check_node("Reshape", [np.zeros((0, 3), np.float32), ints(3, 0)], {"allowzero": 1}, opset=14)


def test_reshape_before_opset_5():
    check_node("Reshape", [X], {"shape": [0, -1]}, 1, want=[X.reshape(2, -1)])


def test_a_misfit_is_an_error_of_ours():
    model = convert(node_model("Reshape", [X, ints(5, 5)])).bind(x1=ints(5, 5))
    with pytest.raises(InvalidInputError, match="Reshape"):
        model.apply(model.params, X)


@pytest.mark.parametrize("perm", [None, [0, 2, 1], [2, 0, 1]])
def test_transpose(perm):
    check_node("Transpose", [X], {"perm": perm} if perm else {}, opset=13)


@pytest.mark.parametrize("axes", [None, [0], [-1], [0, 2]])
def test_squeeze(axes):
    x = X[:1, :, :1]
    check_node("Squeeze", [x], {"axes": axes} if axes else {}, opset=11)
    check_node("Squeeze", [x, ints(*axes)] if axes else [x], opset=13)


@pytest.mark.parametrize("axes", [[0], [-1], [1, 4], [3, 0]])
def test_unsqueeze(axes):
    check_node("Unsqueeze", [X], {"axes": axes}, opset=11)
    check_node("Unsqueeze", [X, ints(*axes)], opset=13)


@pytest.mark.parametrize("axis", [None, 0, 2, 3, -1])
def test_flatten(axis):
    check_node("Flatten", [X], {} if axis is None else {"axis": axis}, opset=13)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(axis):
    check_node("Concat", [X, X + 1, X], {"axis": axis}, opset=13)


@pytest.mark.parametrize(("inputs", "attrs", "opset", "n"), [
    ([X], {"axis": 2}, 2, 2), ([X], {"axis": 1, "split": [1, 2]}, 11, 2), ([X, ints(1, 2)], {"axis": 1}, 13, 2),
    ([X], {"axis": -1}, 13, 4), ([X], {"axis": 2, "num_outputs": 3}, 18, 3), ([X, ints(3, 0, 1)], {"axis": 2}, 18, 3),
])  # fmt: skip
def test_split(inputs, attrs, opset, n):
    check_node("Split", inputs, attrs, opset, n_outputs=n)


@pytest.mark.parametrize("shape", [(2, 3, 4), (5, 1, 1, 1), (3, 1), (1,)])
def test_expand(shape):
    check_node("Expand", [X, ints(*shape)], opset=13)


def test_tile():
    check_node("Tile", [X, ints(2, 1, 3)], opset=13)
    check_node("Tile", [X, ints(2), ints(1)], opset=1, want=[np.concatenate([X, X], 1)])


@pytest.mark.parametrize("attrs", [{}, {"start": 1}, {"end": -1}, {"start": -2, "end": 3}, {"start": 2, "end": 1}])
def test_shape(attrs):
    check_node("Shape", [X], attrs, opset=15)


def test_size():
    check_node("Size", [X], opset=13)


def test_where():
    check_node("Where", [X > 0, X, np.float32([7])], opset=16)


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [None, ints(1), ints(-1)])
def test_trilu(upper, k):
    check_node("Trilu", [X, k], {"upper": upper}, opset=14)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("pads", [(0, 1, 2, 0, 0, 1), (0, 0, 0, 0, 0, 0), (0, -1, 2, 0, 1, -1)])
def test_pad(mode, pads):
    check_node("Pad", [X], {"pads": pads, "mode": mode, "value": 1.5}, opset=2)
    value = np.float32(1.5) if mode == "constant" else None
    check_node("Pad", [X, ints(*pads), value], {"mode": mode}, opset=13)


def test_pad_axes_and_wrap():
    check_node("Pad", [X, ints(1, 2), None, ints(-1)], {"mode": "reflect"}, opset=18)
    check_node("Pad", [X, ints(0, 1, 2, 0, 2, 1)], {"mode": "wrap"}, opset=19)


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_padding_wider_than_its_axis(mode, size):
    x, ends = np.arange(2 * size, dtype=np.float32).reshape(2, size), [(0, 3), (11, 12)]
    want, pads = np.pad(x, ends, mode=mode), ints(*(low for low, _ in ends), *(high for _, high in ends))
    np.testing.assert_array_equal(tensor.pad(x, pads, mode=mode), want)
    np.testing.assert_array_equal(jax.jit(lambda x: tensor.pad(x, pads, mode=mode))(x), want)
    wide = jax.make_jaxpr(lambda x: tensor.pad(x, ints(0, 10**5, 0, 10**5), mode=mode))(x)
    assert len(str(wide)) < 5000


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode):
    check_node("DepthToSpace", [IMAGE], {"blocksize": 2, "mode": mode}, opset=13)


def test_space_to_depth():
    check_node("SpaceToDepth", [IMAGE], {"blocksize": 2}, opset=13)


@pytest.mark.parametrize(("op", "inputs", "attrs"), [
    ("Reshape", [X, ints(4, 6)], {}), ("Transpose", [X], {}), ("Concat", [X, X * 2], {"axis": 1}),
    ("Expand", [X, ints(2, 2, 3, 4)], {}), ("Tile", [X, ints(2, 1, 1)], {}), ("Where", [X > 0, X, X * 3], {}),
    ("Pad", [X, ints(0, 1, 2, 0, 0, 1), np.float32(2)], {}), ("Pad", [X, ints(0, 1, 2, 0, 0, 1)], {"mode": "reflect"}),
    ("Pad", [X, ints(0, -1, 2, 0, 0, 1)], {"mode": "edge"}), ("Trilu", [X], {}), ("Split", [X], {"axis": 1}),
    ("DepthToSpace", [IMAGE], {"blocksize": 2}), ("SpaceToDepth", [IMAGE], {"blocksize": 2}), ("Flatten", [X], {}),
])  # fmt: skip
def test_transforms(op, inputs, attrs):
    check_transforms(op, inputs, attrs, opset=17)
