"""Batching rules: operators that compute each row of a result from the same row of their inputs.

A rule returns the axis of the rows in the results, or None if a row of the result may depend on other rows. A rule that
returns None too often refuses a model; one that wrongly returns an axis would let padding reach the results. Each
docstring names the case in which rows stay apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from modeldiff_jax.models.graph import bounded
from modeldiff_jax.models.graph.values import Value, axis_index, axis_indices, sizes
from modeldiff_jax.models.onnx.registration import ONNX

Axes = Sequence[int | None]
row_by_row = partial(bounded.batching_rule, domain=ONNX)


def _only_first(axes: Axes) -> int | None:
    return axes[0] if all(axis is None for axis in axes[1:]) else None


@row_by_row("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor",
            "Log", "Neg", "Not", "BitwiseNot", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Sinh",
            "Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "IsNaN", "IsInf", "Identity", "Cast", "Clip", "Elu",
            "Selu", "Celu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "ThresholdedRelu", "Shrink",
            "Swish", "BitCast")  # fmt: skip
def unary(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts operators that are elementwise in the first input, with one number in each other input."""
    return _only_first(axes) if all(x is None or np.size(x) == 1 for x in xs[1:]) else None


@row_by_row("Add", "Sub", "Mul", "Div", "Pow", "Mod", "And", "Or", "Xor", "Equal", "Greater", "GreaterOrEqual",
            "Less", "LessOrEqual", "Min", "Max", "Sum", "Mean", "Where", "BitShift", "BitwiseAnd", "BitwiseOr",
            "BitwiseXor")  # fmt: skip
def broadcast(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts operators that are elementwise in all inputs, with all rows on one axis of the result."""
    if attributes.get("broadcast"):  # opsets 1 to 6 align axes in another way
        return None
    rank = max(np.ndim(x) for x in xs)
    (row_axis, *others) = {axis + rank - np.ndim(x) for x, axis in zip(xs, axes, strict=True) if axis is not None}
    for x, axis in zip(xs, axes, strict=True):
        axis_in_x = row_axis - (rank - np.ndim(x))
        if axis is None and axis_in_x >= 0 and np.shape(x)[axis_in_x] != 1:
            return None
    return None if others else row_axis


@row_by_row("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool",
            "BatchNormalization", "InstanceNormalization", "DepthToSpace", "SpaceToDepth", "LRN")  # fmt: skip
def batch(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts operators that compute each example of the first axis by itself."""
    training = attributes.get("training_mode") or not attributes.get("is_test", 1)
    return 0 if _only_first(axes) == 0 and not training else None


@row_by_row("Gemm")
def gemm(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts rows of the first matrix, with one bias for all rows."""
    one_bias = len(xs) < 3 or xs[2] is None or np.ndim(xs[2]) < 2 or np.shape(xs[2])[0] == 1
    return 0 if _only_first(axes) == 0 and not attributes["transA"] and one_bias else None


@row_by_row("MatMul")
def matmul(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts rows of the first factor, times one matrix or vector."""
    axis = _only_first(axes)
    return axis if axis is not None and axis < np.ndim(xs[0]) - 1 and np.ndim(xs[1]) <= 2 else None


@row_by_row("Softmax", "LogSoftmax", "Hardmax", "LayerNormalization", "RMSNormalization")
def along_later_axes(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts operators over axes after that of the rows."""
    axis, rank = _only_first(axes), np.ndim(xs[0])
    if axis is None or any(np.ndim(x) >= rank - axis for x in xs[1:] if x is not None):
        return None
    return axis if axis < axis_index(attributes["axis"], rank) else None


def _without(axis: int | None, removed: Sequence[int], keepdims: Any) -> int | None:
    if axis is None or axis in removed:
        return None
    return axis if keepdims else axis - sum(other < axis for other in removed)


@row_by_row("ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2",
            "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")  # fmt: skip
def reduction(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts reductions over axes other than that of the rows."""
    reduced = xs[1] if len(xs) > 1 else attributes.get("axes")
    if reduced is None or not np.size(reduced):
        return None
    return _without(_only_first(axes), axis_indices(reduced, np.ndim(xs[0])), attributes["keepdims"] == 1)


@row_by_row("ArgMax", "ArgMin")
def arg(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts indices of extremes along an axis other than that of the rows."""
    return _without(axes[0], [axis_index(attributes["axis"], np.ndim(xs[0]))], attributes["keepdims"] == 1)


@row_by_row("TopK", "Split", "CumSum", "CumProd")
def along_another_axis(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts operators along an axis other than that of the rows."""
    axis = attributes["axis"] if "axis" in attributes else int(np.ravel(xs[1])[0])
    return _without(_only_first(axes), [axis_index(axis, np.ndim(xs[0]))], True)


@row_by_row("Gather")
def gather(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts one table read at the rows' indices, or each row read at the same indices."""
    axis = axis_index(attributes["axis"], np.ndim(xs[0]))
    if axes[0] is None:
        return None if axes[1] is None else axes[1] + axis
    if axes[1] is not None or axes[0] == axis:
        return None
    return axes[0] if axes[0] < axis else axes[0] - 1 + np.ndim(xs[1])


@row_by_row("GatherElements")
def gather_elements(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts each row read at the indices of the same row."""
    axis = axis_index(attributes["axis"], np.ndim(xs[0]))
    return axes[0] if axes[0] == axes[1] and axes[0] != axis else None


@row_by_row("GatherND")
def gather_nd(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts one tensor read at the rows' index vectors."""
    outer = axes[1] is not None and attributes["batch_dims"] <= axes[1] < np.ndim(xs[1]) - 1
    return axes[1] if axes[0] is None and outer else None


@row_by_row("RoiAlign")
def roi_align(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts one batch of images read in the rows' regions."""
    return 0 if tuple(axes) == (None, 0, 0) else None


@row_by_row("OneHot")
def one_hot(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts a new axis besides that of the rows."""
    axis = _only_first(axes)
    return None if axis is None else axis + (axis_index(attributes["axis"], np.ndim(xs[0]) + 1) <= axis)


@row_by_row("Concat")
def concat(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts a concatenation of inputs that all have the rows, along another axis."""
    same = len(set(axes)) == 1 and axes[0] is not None
    return axes[0] if same and axes[0] != axis_index(attributes["axis"], np.ndim(xs[0])) else None


@row_by_row("Slice")
def slices(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts slices along axes other than that of the rows."""
    named = (xs[3] if len(xs) > 3 else None) if len(xs) > 1 else attributes["axes"]
    count = np.size(xs[1]) if len(xs) > 1 else len(attributes["starts"])
    sliced = range(count) if named is None else axis_indices(named, np.ndim(xs[0]))
    return _without(_only_first(axes), list(sliced), True)


@row_by_row("Transpose")
def transpose(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts any order of axes."""
    rank = np.ndim(xs[0])
    order = attributes["perm"] or range(rank)[::-1]
    return None if axes[0] is None else [axis_index(axis, rank) for axis in order].index(axes[0])


@row_by_row("Squeeze")
def squeeze(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts the removal of named axes; without names the number of rows would decide which are removed."""
    named = xs[1] if len(xs) > 1 else attributes.get("axes")
    return None if named is None else _without(_only_first(axes), axis_indices(named, np.ndim(xs[0])), False)


@row_by_row("Unsqueeze")
def unsqueeze(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts new axes."""
    named, axis = xs[1] if len(xs) > 1 else attributes["axes"], _only_first(axes)
    new = set(axis_indices(named, np.ndim(xs[0]) + np.size(named)))
    old = [i for i in range(np.ndim(xs[0]) + len(new)) if i not in new]
    return None if axis is None else old[axis]


@row_by_row("Reshape")
def reshape(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts shapes that keep the axis of the rows as 0, or as -1 with all sizes before and after it kept too."""
    if len(xs) < 2 or axes[0] is None or attributes["allowzero"]:
        return None
    old, new, axis = np.shape(xs[0]), sizes(xs[1]), axes[0]
    filled = [old[i] if dim == 0 else dim for i, dim in enumerate(new)]
    if axis >= len(filled) or tuple(filled[:axis]) != old[:axis] or new[axis] not in (0, -1):
        return None
    inner = filled[axis + 1 :]
    same_rows = new[axis] == 0 or (-1 not in inner and int(np.prod(inner)) == int(np.prod(old[axis + 1 :])))
    return axis if same_rows else None


@row_by_row("Flatten")
def flatten(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Accepts a matrix with a row for each row."""
    return 0 if axes[0] == 0 and attributes["axis"] == 1 else None
