"""Reductions against onnxruntime, with axes as an attribute and as an input."""

import jax
import numpy as np
import pytest

from tests.models.onnx.helpers import check_node, check_transforms, convert, node_model

X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
POSITIVE = np.abs(X) + np.float32(0.1)
INTS = np.int32([[5, -2, 7], [-9, 4, 1]])
OPS = [
    "ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare",
    "ReduceLogSum", "ReduceLogSumExp",
]  # fmt: skip


def values(op):
    return POSITIVE if op == "ReduceLogSum" else X


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("attrs", [
    {}, {"axes": [1]}, {"axes": [0, -1], "keepdims": 0}, {"keepdims": 0},
])  # fmt: skip
def test_axes_as_attribute(op, attrs):
    check_node(op, [values(op)], attrs, opset=11)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(("axes", "attrs"), [
    ([1], {}), ([0, -1], {"keepdims": 0}), (None, {"keepdims": 0}), ([], {}), ([], {"noop_with_empty_axes": 1}),
])  # fmt: skip
def test_axes_as_input(op, axes, attrs):
    check_node(op, [values(op), None if axes is None else np.int64(axes)], attrs, opset=18)


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceL1", "ReduceSumSquare"])
def test_sums_of_half_precision_add_up_in_single(op):
    x = np.ones((2, 4096), np.float16)  # in float16 the sum of ones stops at 2048
    result = {"ReduceMean": 1}.get(op, 4096)
    check_node(op, [x], {"axes": [1]}, opset=11, want=[np.full((2, 1), result, np.float16)])


def test_sum_took_its_axes_earlier():
    check_node("ReduceSum", [X, np.int64([1])], opset=13)
    check_node("ReduceMean", [X], {"axes": [1]}, opset=13)


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceL1"])
def test_integers_keep_their_type(op):
    check_node(op, [INTS], {"axes": [1]}, opset=11)


@pytest.mark.parametrize("op", OPS)
def test_transforms(op):
    check_transforms(op, [values(op)], {"axes": [0, 2], "keepdims": 0}, opset=11)


def test_the_norm_of_zeros_has_a_slope():
    model = convert(node_model("ReduceL2", [X[0]], {"axes": [1]}, 11))
    slope = jax.grad(lambda x: model.apply(model.params, x).sum())(np.zeros((3, 4), np.float32))
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize(("op", "want"), [
    ("ReduceSum", 0), ("ReduceProd", 1), ("ReduceMax", -np.inf), ("ReduceMin", np.inf), ("ReduceLogSumExp", -np.inf),
])  # fmt: skip
def test_of_nothing(op, want):
    empty = np.zeros((2, 0, 3), np.float32)
    check_node(op, [empty, np.int64([1])], opset=20, want=[np.full((2, 1, 3), want, np.float32)])


TIES = np.float32([[1, 3, 3, 2], [0, -1, 0, -1]])


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("attrs", [{}, {"axis": 1}, {"axis": -1, "keepdims": 0}])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("x", [TIES, X])
def test_places(op, x, attrs, last):
    check_node(op, [x], {**attrs, "select_last_index": last}, opset=13)


def test_places_before_opset_12():
    check_node("ArgMax", [TIES], {"axis": 1}, opset=7)
