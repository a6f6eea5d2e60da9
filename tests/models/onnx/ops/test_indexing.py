"""Slices, gathers and scatters against onnxruntime."""

import jax
import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError, NotStaticError
from tests.models.onnx.helpers import check_node, check_transforms, convert, node_model

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4, 5)).astype(np.float32)
FAR = 2**63 - 1


def ints(*values):
    return np.asarray(values, np.int64)


@pytest.mark.parametrize(("starts", "ends", "axes", "steps"), [
    ([1], [3], None, None), ([1, -2], [FAR, FAR], [1, 2], None), ([0, 0], [-1, 100], [0, -1], [1, 2]),
    ([-1], [-FAR - 1], [1], [-1]), ([3, 4], [0, -100], [1, 2], [-2, -1]), ([2], [1], [0], None),
    ([FAR], [0], [2], [-1]),
])  # fmt: skip
def test_slice(starts, ends, axes, steps):
    optional = [None if v is None else ints(*v) for v in (axes, steps)]
    check_node("Slice", [X, ints(*starts), ints(*ends), *optional], opset=13)


def test_slice_before_opset_10():
    check_node("Slice", [X], {"starts": [1, -2], "ends": [3, FAR], "axes": [0, 2]}, opset=9)


@pytest.mark.parametrize("indices", [ints(0, 2, -1), np.int64(1), np.int64(-1), ints(0, 1).reshape(2, 1), ints()])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(indices, axis):
    check_node("Gather", [X, indices], {"axis": axis}, opset=13)


def test_gather_by_known_indices_checks_them():
    model = convert(node_model("Gather", [X, ints(7)])).bind(x1=ints(7))
    with pytest.raises(InvalidInputError, match="index"):
        model.apply(model.params, X)


@pytest.mark.parametrize(("shape", "axis"), [((3, 4, 2), 2), ((2, 4, 5), 0), ((2, 2, 2), 1)])
def test_gather_elements(shape, axis):
    indices = RNG.integers(-X.shape[axis], X.shape[axis], shape)
    check_node("GatherElements", [X, indices], {"axis": axis}, opset=13)


@pytest.mark.parametrize(("indices", "batch_dims"), [
    ([[0, 1], [2, -1]], 0), ([[[0, 1, 2]], [[2, 3, 4]]], 0), ([[2], [0]], 0), ([[1], [-1], [0]], 1),
    ([[[1, 2]], [[0, 0]], [[3, 4]]], 1), (np.zeros((3, 4, 1), np.int64), 2),
])  # fmt: skip
def test_gather_nd(indices, batch_dims):
    attrs = {"batch_dims": batch_dims} if batch_dims else {}
    check_node("GatherND", [X, np.asarray(indices, np.int64)], attrs, opset=12)


@pytest.mark.parametrize("reduction", [None, "none", "add", "mul", "min", "max"])
@pytest.mark.parametrize("axis", [0, 2])
def test_scatter_elements(axis, reduction):
    indices = np.stack([RNG.permutation(3)[:2] for _ in range(8)]).reshape(2, 4, 2) % X.shape[axis]
    indices = indices if reduction not in (None, "none") else np.argsort(RNG.random((3, 4, 5)), axis)[:2]
    indices = indices[:, :, :5]
    updates = RNG.standard_normal(indices.shape).astype(np.float32)
    attrs = {"axis": axis} | ({} if reduction is None else {"reduction": reduction})
    check_node("ScatterElements", [X, indices, updates], attrs, opset=11 if reduction is None else 18)


def test_scatter_is_the_old_name():
    indices = ints(0, 2, 1)[None, :, None]
    check_node("Scatter", [X, indices, np.ones((1, 3, 1), np.float32)], {"axis": 1}, opset=9)


@pytest.mark.parametrize("reduction", [None, "add", "mul", "min", "max"])
@pytest.mark.parametrize("indices", [[[0], [2]], [[0, 1], [2, -1]], [[[1, 2, 3]], [[0, 0, 0]]]])
def test_scatter_nd(indices, reduction):
    indices = np.asarray(indices, np.int64)
    updates = RNG.standard_normal(indices.shape[:-1] + X.shape[indices.shape[-1] :]).astype(np.float32)
    attrs = {} if reduction is None else {"reduction": reduction}
    check_node("ScatterND", [X, indices, updates], attrs, opset=13 if reduction is None else 18)


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("indices", [ints(0, 2, -1, 7), ints(1, 0).reshape(2, 1)])
def test_one_hot(indices, axis):
    check_node("OneHot", [indices, np.int64(3), np.float32([-1, 5])], {"axis": axis}, opset=11)


def test_non_zero():
    check_node("NonZero", [np.float32([[1, 0, 2], [0, 0, 3]])], opset=13)


def test_non_zero_of_traced_data_says_what_to_do():
    model = convert(node_model("NonZero", [X]))
    with pytest.raises(NotStaticError, match="bind"):
        jax.jit(model.apply)(model.params, X)


@pytest.mark.parametrize("axis", [None, 1])
def test_compress(axis):
    attrs = {} if axis is None else {"axis": axis}
    check_node("Compress", [X, np.array([False, True, True])], attrs, opset=11)


@pytest.mark.parametrize(("axis", "order"), [(None, 1), (None, 0), (0, 1)])
def test_unique(axis, order):
    x = np.float32([[3, 1], [2, 2], [3, 1]])
    attrs = {"sorted": order} | ({} if axis is None else {"axis": axis})
    check_node("Unique", [x], attrs, opset=11, n_outputs=4)


@pytest.mark.parametrize(("batch_axis", "time_axis"), [(1, 0), (0, 1)])
def test_reverse_sequence(batch_axis, time_axis):
    lengths = RNG.integers(1, X.shape[time_axis] + 1, X.shape[batch_axis])
    attrs = {"batch_axis": batch_axis, "time_axis": time_axis}
    check_node("ReverseSequence", [X, lengths], attrs, opset=10)


@pytest.mark.parametrize(("op", "inputs", "attrs"), [
    ("Slice", [X, ints(1), ints(3), ints(1)], {}), ("Slice", [X, ints(-1), ints(-9), ints(2), ints(-2)], {}),
    ("Gather", [X, ints(0, 2, -1)], {"axis": 1}), ("GatherElements", [X, RNG.integers(0, 4, (3, 2, 5))], {"axis": 1}),
    ("GatherND", [X, ints([0, 1], [2, -1])], {}), ("ScatterND", [X, ints([0], [2]), X[:2] * 2], {}),
    ("ScatterElements", [X, np.zeros((1, 4, 5), np.int64), X[:1]], {}),
    ("ScatterND", [X, ints([0], [2]), X[:2] * 2], {"reduction": "add"}),
])  # fmt: skip
def test_transforms(op, inputs, attrs):
    check_transforms(op, inputs, attrs, opset=16)
