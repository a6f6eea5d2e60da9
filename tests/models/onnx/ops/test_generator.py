"""Tensors made out of shapes and ranges."""

import numpy as np
import pytest
from onnx import numpy_helper

from modeldiff_jax.errors import LimitExceededError
from tests.models.onnx.helpers import check_node, convert, node_model


@pytest.mark.parametrize("value", [None, np.float32([1.5]), np.int64([-3]), np.array([True])])
@pytest.mark.parametrize("shape", [[2, 3], [], [0, 2]])
def test_constant_of_shape(shape, value):
    attrs = {} if value is None else {"value": numpy_helper.from_array(value)}
    check_node("ConstantOfShape", [np.asarray(shape, np.int64)], attrs, opset=9)


@pytest.mark.parametrize("attrs", [{}, {"k": 1}, {"k": -1, "dtype": 7}])
def test_eye_like(attrs):
    check_node("EyeLike", [np.zeros((3, 4), np.float32)], attrs, opset=9)


@pytest.mark.parametrize(("start", "limit", "delta"), [
    (np.float32(0), np.float32(1), np.float32(0.3)), (np.int64(10), np.int64(4), np.int64(-2)),
    (np.int32(3), np.int32(3), np.int32(1)), (np.int64(0), np.int64(5), np.int64(1)),
])  # fmt: skip
def test_range(start, limit, delta):
    check_node("Range", [start, limit, delta], opset=11)


@pytest.mark.parametrize(("op", "inputs"), [
    ("ConstantOfShape", [np.int64([2**20, 2**20])]),
    ("Range", [np.int64(0), np.int64(2**60), np.int64(1)]),
    ("Range", [np.float32(0), np.float32(1), np.float32(1e-30)]),
    ("Expand", [np.float32([1]), np.int64([2**20, 2**20])]),
    ("Tile", [np.float32([1, 2]), np.int64([2**40])]),
    ("Pad", [np.float32([1]), np.int64([0, 2**40])]),
    ("Resize", [np.ones((1, 1, 2, 2), np.float32), None, np.float32([1, 1, 2**20, 2**20])]),
    ("OneHot", [np.int64([0]), np.int64(2**40), np.float32([0, 1])]),
])  # fmt: skip
def test_a_few_bytes_cannot_ask_for_terabytes(op, inputs):
    model = convert(node_model(op, inputs, opset=13))
    feeds = [value for value in inputs if value is not None]
    with pytest.raises(LimitExceededError, match="made_elements"):
        model.apply(model.params, *feeds)
