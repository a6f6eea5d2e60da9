"""Batching rules: operators that compute each row of a result from the same row of their inputs.

A rule returns the axis of the rows in the results, or None where a row of the result may depend on other rows. A rule
that returns None too often refuses a model; one that returns an axis wrongly would let padding reach the results.
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


def _first_alone(axes: Axes) -> int | None:
    return axes[0] if all(axis is None for axis in axes[1:]) else None


@row_by_row("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor",
            "Log", "Neg", "Not", "BitwiseNot", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Sinh",
            "Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "IsNaN", "IsInf", "Identity", "Cast", "Clip", "Elu",
            "Selu", "Celu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "ThresholdedRelu", "Shrink",
            "Swish", "BitCast")  # fmt: skip
def unary(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Elementwise in the first input; the others hold one number each."""
    return _first_alone(axes) if all(x is None or np.size(x) == 1 for x in xs[1:]) else None


@row_by_row("Add", "Sub", "Mul", "Div", "Pow", "Mod", "And", "Or", "Xor", "Equal", "Greater", "GreaterOrEqual",
            "Less", "LessOrEqual", "Min", "Max", "Sum", "Mean", "Where", "BitShift", "BitwiseAnd", "BitwiseOr",
            "BitwiseXor")  # fmt: skip
def broadcast(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Elementwise in all inputs; rows meet rows, or values that are the same for all rows."""
    if attributes.get("broadcast"):  # opsets 1 to 6 line axes up otherwise
        return None
    rank = max(np.ndim(x) for x in xs)
    (at, *others) = {axis + rank - np.ndim(x) for x, axis in zip(xs, axes, strict=True) if axis is not None}
    for x, axis in zip(xs, axes, strict=True):
        own = at - (rank - np.ndim(x))
        if axis is None and own >= 0 and np.shape(x)[own] != 1:
            return None
    return None if others else at


@row_by_row("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool",
            "BatchNormalization", "InstanceNormalization", "DepthToSpace", "SpaceToDepth", "LRN")  # fmt: skip
def batch(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Example by example."""
    training = attributes.get("training_mode") or not attributes.get("is_test", 1)
    return 0 if _first_alone(axes) == 0 and not training else None


@row_by_row("Gemm")
def gemm(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Rows of the first matrix; the bias is one for all of them."""
    one_bias = len(xs) < 3 or xs[2] is None or np.ndim(xs[2]) < 2 or np.shape(xs[2])[0] == 1
    return 0 if _first_alone(axes) == 0 and not attributes["transA"] and one_bias else None


@row_by_row("MatMul")
def matmul(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Rows of the first factor by one matrix or vector."""
    axis = _first_alone(axes)
    return axis if axis is not None and axis < np.ndim(xs[0]) - 1 and np.ndim(xs[1]) <= 2 else None


@row_by_row("Softmax", "LogSoftmax", "Hardmax", "LayerNormalization", "RMSNormalization")
def along_later_axes(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Over axes after that of the rows."""
    axis, rank = _first_alone(axes), np.ndim(xs[0])
    if axis is None or any(np.ndim(x) >= rank - axis for x in xs[1:] if x is not None):
        return None
    return axis if axis < axis_index(attributes["axis"], rank) else None


def _without(axis: int | None, gone: Sequence[int], keepdims: Any) -> int | None:
    if axis is None or axis in gone:
        return None
    return axis if keepdims else axis - sum(g < axis for g in gone)


@row_by_row("ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2",
            "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")  # fmt: skip
def reduction(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Over axes other than that of the rows."""
    over = xs[1] if len(xs) > 1 else attributes.get("axes")
    if over is None or not np.size(over):
        return None
    return _without(_first_alone(axes), axis_indices(over, np.ndim(xs[0])), attributes["keepdims"] == 1)


@row_by_row("ArgMax", "ArgMin")
def arg(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Over an axis other than that of the rows."""
    return _without(axes[0], [axis_index(attributes["axis"], np.ndim(xs[0]))], attributes["keepdims"] == 1)


@row_by_row("TopK", "Split", "CumSum", "CumProd")
def along_another_axis(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Along an axis other than that of the rows."""
    along = attributes["axis"] if "axis" in attributes else int(np.ravel(xs[1])[0])
    return _without(_first_alone(axes), [axis_index(along, np.ndim(xs[0]))], True)


@row_by_row("Gather")
def gather(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """One table read at the rows' indices, or each row read at the same indices."""
    at = axis_index(attributes["axis"], np.ndim(xs[0]))
    if axes[0] is None:
        return None if axes[1] is None else axes[1] + at
    if axes[1] is not None or axes[0] == at:
        return None
    return axes[0] if axes[0] < at else axes[0] - 1 + np.ndim(xs[1])


@row_by_row("GatherElements")
def gather_elements(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Each row read at its own indices."""
    along = axis_index(attributes["axis"], np.ndim(xs[0]))
    return axes[0] if axes[0] == axes[1] and axes[0] != along else None


@row_by_row("GatherND")
def gather_nd(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """One tensor read at the rows' index vectors."""
    outer = axes[1] is not None and attributes["batch_dims"] <= axes[1] < np.ndim(xs[1]) - 1
    return axes[1] if axes[0] is None and outer else None


@row_by_row("RoiAlign")
def roi_align(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """The same images read in the rows' regions."""
    return 0 if tuple(axes) == (None, 0, 0) else None


@row_by_row("OneHot")
def one_hot(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """A new axis beside that of the rows."""
    axis = _first_alone(axes)
    return None if axis is None else axis + (axis_index(attributes["axis"], np.ndim(xs[0]) + 1) <= axis)


@row_by_row("Concat")
def concat(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Concatenation of inputs that all have the rows, along another axis."""
    same = len(set(axes)) == 1 and axes[0] is not None
    return axes[0] if same and axes[0] != axis_index(attributes["axis"], np.ndim(xs[0])) else None


@row_by_row("Slice")
def cut(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Along axes other than that of the rows."""
    over = (xs[3] if len(xs) > 3 else None) if len(xs) > 1 else attributes["axes"]
    count = np.size(xs[1]) if len(xs) > 1 else len(attributes["starts"])
    cut_axes = range(count) if over is None else axis_indices(over, np.ndim(xs[0]))
    return _without(_first_alone(axes), list(cut_axes), True)


@row_by_row("Transpose")
def transpose(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Axes in another order."""
    rank = np.ndim(xs[0])
    order = attributes["perm"] or range(rank)[::-1]
    return None if axes[0] is None else [axis_index(axis, rank) for axis in order].index(axes[0])


@row_by_row("Squeeze")
def squeeze(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """Without named axes; they must be named, since the number of rows must not decide which are removed."""
    over = xs[1] if len(xs) > 1 else attributes.get("axes")
    return None if over is None else _without(_first_alone(axes), axis_indices(over, np.ndim(xs[0])), False)


@row_by_row("Unsqueeze")
def unsqueeze(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """With new axes."""
    over, axis = xs[1] if len(xs) > 1 else attributes["axes"], _first_alone(axes)
    new = set(axis_indices(over, np.ndim(xs[0]) + np.size(over)))
    left = [i for i in range(np.ndim(xs[0]) + len(new)) if i not in new]
    return None if axis is None else left[axis]


@row_by_row("Reshape")
def reshape(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """In another shape, where the axis of the rows is kept as 0, or as -1 with all axes before it kept too."""
    if len(xs) < 2 or axes[0] is None or attributes["allowzero"]:
        return None
    old, wanted, at = np.shape(xs[0]), sizes(xs[1]), axes[0]
    named = [old[i] if dim == 0 else dim for i, dim in enumerate(wanted)]
    if at >= len(named) or tuple(named[:at]) != old[:at] or wanted[at] not in (0, -1):
        return None
    rest = named[at + 1 :]
    kept = wanted[at] == 0 or (-1 not in rest and int(np.prod(rest)) == int(np.prod(old[at + 1 :])))
    return at if kept else None


@row_by_row("Flatten")
def flatten(xs: Sequence[Value], axes: Axes, attributes: Mapping[str, Any]) -> int | None:
    """A matrix with a row for each row."""
    return 0 if axes[0] == 0 and attributes["axis"] == 1 else None
