"""Reductions over axes: sums, products, norms, extremes and the indices of extremes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.kernels.rounding import finite_range
from modeldiff_jax.models.graph.registry import Static
from modeldiff_jax.models.graph.sizes import is_sizes
from modeldiff_jax.models.graph.values import (
    Value,
    astype,
    axis_index,
    axis_indices,
    concrete,
    in_float32,
    is_integer,
    xp,
)
from modeldiff_jax.models.onnx.ops.math import truncated_division
from modeldiff_jax.models.onnx.registration import op

Axes = tuple[int, ...]


@in_float32
def _sum(x: Value, axis: Axes, keepdims: bool) -> Value:
    return astype(xp(x).sum(x, axis=axis, keepdims=keepdims), x.dtype)


@in_float32
def _prod(x: Value, axis: Axes, keepdims: bool) -> Value:
    return astype(xp(x).prod(x, axis=axis, keepdims=keepdims), x.dtype)


@in_float32
def _mean(x: Value, axis: Axes, keepdims: bool) -> Value:
    if not is_integer(x):
        return xp(x).mean(x, axis=axis, keepdims=keepdims)
    count = np.prod([x.shape[a] for a in axis], dtype=np.int64)
    return truncated_division(_sum(x, axis, keepdims), np.asarray(count, None if is_sizes(x) else x.dtype))


def _extreme(name: str) -> Callable[[Value, Axes, bool], Value]:
    def reduce(x: Value, axis: Axes, keepdims: bool) -> Value:
        if any(x.shape[a] == 0 for a in axis):  # the largest entry of an empty set is the smallest value of the type
            low, high = (-np.inf, np.inf) if jnp.issubdtype(x.dtype, jnp.floating) else finite_range(x.dtype)
            shape = tuple(1 if a in axis else d for a, d in enumerate(x.shape) if keepdims or a not in axis)
            return xp(x).full(shape, low if name == "max" else high, x.dtype)
        return getattr(xp(x), name)(x, axis=axis, keepdims=keepdims)

    return reduce


@in_float32
def _sum_square(x: Value, axis: Axes, keepdims: bool) -> Value:
    return _sum(x * x, axis, keepdims)


@in_float32
def _l1(x: Value, axis: Axes, keepdims: bool) -> Value:
    return _sum(xp(x).abs(x), axis, keepdims)


@in_float32
def _l2(x: Value, axis: Axes, keepdims: bool) -> Value:
    squares = _sum_square(x, axis, keepdims)
    if concrete(x) or is_integer(x):
        return astype(xp(x).sqrt(squares), x.dtype)
    # the derivative of the root at 0 is infinite; the subgradient of the norm there is 0
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), squares)


@in_float32
def _log_sum(x: Value, axis: Axes, keepdims: bool) -> Value:
    return astype(xp(x).log(_sum(x, axis, keepdims)), x.dtype)


@in_float32
def _log_sum_exp(x: Value, axis: Axes, keepdims: bool) -> Value:
    return astype(jax.scipy.special.logsumexp(jnp.asarray(x), axis=axis, keepdims=keepdims), x.dtype)


# name -> function, first opset with the axes as an input
_REDUCTIONS: dict[str, tuple[Callable[[Value, Axes, bool], Value], int]] = {
    "ReduceSum": (_sum, 13),
    "ReduceMean": (_mean, 18),
    "ReduceProd": (_prod, 18),
    "ReduceMax": (_extreme("max"), 18),
    "ReduceMin": (_extreme("min"), 18),
    "ReduceL1": (_l1, 18),
    "ReduceL2": (_l2, 18),
    "ReduceSumSquare": (_sum_square, 18),
    "ReduceLogSum": (_log_sum, 18),
    "ReduceLogSumExp": (_log_sum_exp, 18),
}


def _register(name: str, function: Callable[[Value, Axes, bool], Value], axes_are_input: int) -> None:
    def with_attribute(x: Value, /, *, axes: Sequence[int] | None = None, keepdims: int = 1) -> Value:
        return function(x, axis_indices(range(x.ndim) if axes is None else axes, x.ndim), keepdims == 1)

    def with_input(x: Value, axes: Static = None, /, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Value:
        if axes is not None and np.size(axes):
            return with_attribute(x, axes=np.ravel(axes).tolist(), keepdims=keepdims)
        # no axes: reduce nothing, or everything
        return function(x, (), keepdims == 1) if noop_with_empty_axes == 1 else with_attribute(x, keepdims=keepdims)

    op(name)(with_attribute)
    op(name, since=axes_are_input)(with_input)


for _name, (_function, _since) in _REDUCTIONS.items():
    _register(_name, _function, _since)


def _index_of_extreme(x: Value, axis: int, keepdims: int, last: int, name: str) -> Value:
    m, axis = xp(x), axis_index(axis, x.ndim)
    if 0 in (*x.shape[:axis], *x.shape[axis + 1 :]):  # an empty result
        shape = [1 if i == axis else n for i, n in enumerate(x.shape) if i != axis or keepdims == 1]
        return np.zeros(shape, np.int64)
    if last:
        index = x.shape[axis] - 1 - getattr(m, name)(m.flip(x, axis), axis=axis, keepdims=keepdims == 1)
    else:
        index = getattr(m, name)(x, axis=axis, keepdims=keepdims == 1)
    return astype(m.asarray(index), np.int64)


@op("ArgMax")
def argmax(x: Value, /, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Value:
    """Returns the index of the largest entry along an axis, the first or the last of equal ones."""
    return _index_of_extreme(x, axis, keepdims, select_last_index, "argmax")


@op("ArgMin")
def argmin(x: Value, /, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Value:
    """Returns the index of the smallest entry along an axis, the first or the last of equal ones."""
    return _index_of_extreme(x, axis, keepdims, select_last_index, "argmin")
