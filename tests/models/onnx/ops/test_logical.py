"""Comparison, logic and bits against onnxruntime."""

import numpy as np
import pytest

from tests.models.onnx.helpers import check_node

A = np.float32([[1, 2, np.nan], [-1, 0, np.inf]])
B = np.float32([1, 3, np.nan])
INTS, OTHERS = np.int64([[1, -2, 3], [4, 5, -6]]), np.int64([1, 2, 3])
TRUE, FALSE = np.array([[True, False, True]]), np.array([[True], [False]])


@pytest.mark.parametrize("op", ["Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"])
@pytest.mark.parametrize(("a", "b"), [(A, B), (B, A), (INTS, OTHERS), (INTS, np.int64(4))])
def test_comparison(op, a, b):
    check_node(op, [a, b], opset=13)


@pytest.mark.parametrize("op", ["And", "Or", "Xor"])
def test_logic(op):
    check_node(op, [TRUE, FALSE], opset=7)


def test_not():
    check_node("Not", [TRUE], opset=7)


def test_equal_of_booleans():
    check_node("Equal", [TRUE, FALSE], opset=13)


def test_broadcast_before_opset_7():
    a, b = np.ones((2, 3, 4), bool), np.array([True, False, True])
    check_node("And", [a, b], {"broadcast": 1, "axis": 1}, 6, want=[a & b[:, None]])


@pytest.mark.parametrize("op", ["BitwiseAnd", "BitwiseOr", "BitwiseXor"])
def test_bits(op):
    check_node(op, [INTS.astype(np.int32), OTHERS.astype(np.int32)], opset=18)


def test_bitwise_not():
    check_node("BitwiseNot", [INTS.astype(np.int32)], opset=18)


@pytest.mark.parametrize("attrs", [{}, {"detect_negative": 0}, {"detect_positive": 0}])
def test_is_inf(attrs):
    check_node("IsInf", [np.float32([1, np.inf, -np.inf, np.nan])], attrs, opset=10)


def test_is_nan():
    check_node("IsNaN", [A], opset=13)
