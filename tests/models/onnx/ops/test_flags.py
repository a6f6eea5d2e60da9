"""Attributes that switch something on: many count only where they are 1, as in onnx's own shape inference."""

import numpy as np
import pytest

from tests.models.onnx.helpers import check_node

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4)).astype(np.float32)
QKV = [RNG.standard_normal((1, 2, 3, 4)).astype(np.float32) for _ in range(3)]
ANGLES = [RNG.standard_normal((1, 3, 2)).astype(np.float32) for _ in range(2)]
CASES = [
    ("ReduceSum", [X, np.int64([1])], "keepdims", {}, 13),
    ("ReduceMax", [X], "keepdims", {"axes": [1]}, 13),
    ("ReduceProd", [X], "noop_with_empty_axes", {}, 18),
    ("ArgMax", [X], "keepdims", {"axis": 1}, 13),
    ("ArgMin", [X], "select_last_index", {"axis": 1}, 13),
    ("AveragePool", [X], "ceil_mode", {"kernel_shape": [3], "strides": [2]}, 19),
    ("MaxPool", [X], "ceil_mode", {"kernel_shape": [3], "strides": [2]}, 12),
    ("TopK", [X, np.int64([2])], "largest", {}, 11),
    ("Unique", [np.float32([3, 1, 3, 2])], "sorted", {}, 11),
    ("Attention", QKV, "is_causal", {}, 23),
    ("RotaryEmbedding", [QKV[0], *ANGLES], "interleaved", {}, 23),
    ("Trilu", [X], "upper", {}, 14),
    ("DFT", [X[..., None]], "inverse", {}, 17),
    ("IsInf", [np.float32([np.inf, -np.inf, 1])], "detect_negative", {}, 10),
]


@pytest.mark.parametrize("value", [0, 1, 2, -1])
@pytest.mark.parametrize(("op", "inputs", "flag", "attrs", "opset"), CASES, ids=[f"{c[0]}-{c[2]}" for c in CASES])
def test_flags_of_any_number(op, inputs, flag, attrs, opset, value):
    outputs = 2 if op == "TopK" else 1
    check_node(op, inputs, {**attrs, flag: value}, opset, n_outputs=outputs, atol=1e-5, concrete=op == "Unique")


def test_reshape_allows_zero_only_where_the_flag_is_one():
    check_node("Reshape", [X, np.int64([0, 12, 1])], {"allowzero": -1}, 14)
    check_node("Reshape", [X[:0], np.int64([0, 7])], {"allowzero": 1}, 14)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("shape", [(3, 0), (0, 0), (2, 0, 3)])
def test_there_may_be_no_places_to_find(op, keepdims, shape):
    check_node(op, [np.zeros(shape, np.float32)], {"axis": 0 if shape[0] else 1, "keepdims": keepdims}, 13)


def test_nothing_goes_in_and_out():
    check_node(
        "MatMulInteger",
        [np.zeros((2, 0), np.uint8), np.zeros((0, 3), np.uint8)],
        {},
        10,
        want=[np.zeros((2, 3), np.int32)],
    )
    check_node("Resize", [np.zeros((1, 1, 0, 2), np.float32), None, np.float32([1, 1, 2, 2])], {"mode": "nearest"}, 13)
    check_node("DynamicQuantizeLinear", [np.zeros(0, np.float32)], {}, 11, n_outputs=3)
    check_node("Gather", [np.zeros((3, 0), np.float32), np.zeros((0, 2), np.int64)], {"axis": 1}, 13)
    check_node("GatherND", [np.zeros((0, 0, 0), np.float32), np.zeros((0, 1, 0), np.int64)], {}, 13)
    check_node("MaxPool", [np.zeros((0, 2, 5, 5), np.float32)], {"kernel_shape": [2, 2]}, 12, n_outputs=2)
    none = [np.zeros((0, 0, 4), np.float32), np.zeros((0, 0, 0), np.float32), np.int64([1])]
    check_node("NonMaxSuppression", none, {}, 11, want=[np.zeros((0, 3), np.int64)])


@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
def test_the_last_window_may_reach_beyond_a_shorter_input(op):
    x = X[..., :2]
    check_node(op, [x], {"kernel_shape": [3], "strides": [2], "ceil_mode": 1}, 12)
