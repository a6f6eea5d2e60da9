"""Slices, gathers and scatters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError, UnsupportedModelError
from modeldiff_jax.limits import check_made
from modeldiff_jax.models.graph.registry import Index, Static
from modeldiff_jax.models.graph.values import (
    Value,
    astype,
    axis_index,
    axis_indices,
    concrete,
    is_narrow,
    sizes,
    widened,
    xp,
)
from modeldiff_jax.models.onnx.registration import op

# Exporters write some large number for "to the end", which cannot be compared with a symbolic size
_FAR = 10**8


@op("Slice")
def slice_1(x: Value, /, *, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None = None) -> Value:
    """Returns `x` from starts to ends along the given axes."""
    return slice_10(x, np.asarray(starts), np.asarray(ends), axes)


@op("Slice", since=10)
def slice_10(x: Value, starts: Static, ends: Static, axes: Static = None, steps: Static = None, /) -> Value:
    """Returns `x` from starts to ends by steps along the given axes, by Python's rules for indices."""
    first, last = sizes(starts), sizes(ends)
    axes = tuple(range(len(first))) if axes is None else axis_indices(axes, x.ndim)
    steps = (1,) * len(first) if steps is None else sizes(steps)
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, first, last, steps, strict=True):
        open_end = isinstance(end, int) and (end >= _FAR if step > 0 else end <= -_FAR)
        open_start = isinstance(start, int) and (start <= -_FAR if step > 0 else start >= _FAR)
        index[axis] = slice(None if open_start else start, None if open_end else end, step)
    return x[tuple(index)]


def _from_front(indices: Value, size: Any) -> Value:
    """Returns indices counted from the front; known ones are checked."""
    if concrete(indices) and isinstance(size, int) and np.size(indices):
        low, high = np.min(indices), np.max(indices)
        if not (-size <= low and high < size):
            raise InvalidInputError("An index must lie within its axis", got=f"{low} to {high} of {size}")
    return xp(indices).where(indices < 0, indices + size, indices)


@op("Gather")
def gather(x: Value, indices: Index, /, *, axis: int = 0) -> Value:
    """Returns the entries of `x` along an axis, at indices of any shape."""
    axis = axis_index(axis, x.ndim)
    indices = _from_front(indices, x.shape[axis])
    if concrete(x, indices):
        return np.take(x, indices.astype(np.int64), axis)
    if concrete(indices) and np.ndim(indices) == 0:  # a slice: cheaper than a gather, and so is its derivative
        return jax.lax.index_in_dim(jnp.asarray(x), indices.item(), axis, keepdims=False)
    if x.shape[axis] == 0:  # an empty result, to which jnp.take gives the wrong shape
        return jnp.zeros((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)
    return jnp.take(x, indices, axis, mode="clip")


@op("GatherElements")
def gather_elements(x: Value, indices: Index, /, *, axis: int = 0) -> Value:
    """Returns the entry at each index along one axis; the other coordinates are those of the index itself."""
    axis = axis_index(axis, x.ndim)
    common = tuple(slice(None) if i == axis else slice(0, n) for i, n in enumerate(indices.shape))
    return xp(x, indices).take_along_axis(x[common], _from_front(indices, x.shape[axis]), axis)


@op("GatherND")
def gather_nd(x: Value, indices: Index, /, *, batch_dims: int = 0) -> Value:
    """Returns the entries or slices of `x` at the index vectors in the last axis of `indices`."""
    index = _batch_index(indices.shape[:batch_dims], indices.ndim - 1)
    index += tuple(_from_front(indices[..., i], x.shape[batch_dims + i]) for i in range(indices.shape[-1]))
    x = x if concrete(x, indices) else jnp.asarray(x)
    return x[index] if index else xp(x).broadcast_to(x, (*indices.shape[:-1], *x.shape))


def _batch_index(sizes_: Sequence[int], rank: int) -> tuple[np.ndarray, ...]:
    return tuple(np.arange(size).reshape((1,) * i + (size,) + (1,) * (rank - 1 - i)) for i, size in enumerate(sizes_))


_SCATTERS = {"none": "set", "add": "add", "mul": "multiply", "min": "min", "max": "max"}
_UFUNCS = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


def _scatter(x: Value, index: tuple[Value, ...], updates: Value, reduction: str) -> Value:
    if reduction in ("add", "mul") and is_narrow(x):  # there may be several updates of one entry
        return astype(_scatter(widened(x), index, widened(updates), reduction), x.dtype)
    if reduction not in _SCATTERS:
        raise InvalidInputError(f"Reduction is one of {', '.join(_SCATTERS)}", got=reduction)
    if not concrete(x, updates, *index):
        return getattr(jnp.asarray(x).at[index], _SCATTERS[reduction])(updates)
    out = np.array(x)
    if reduction == "none":
        out[index] = updates
    else:
        _UFUNCS[reduction].at(out, index, updates)
    return out


@op("Scatter")
def scatter(x: Value, indices: Index, updates: Value, /, *, axis: int = 0) -> Value:
    """Returns `x` with updates written at indices along one axis."""
    return scatter_elements(x, indices, updates, axis=axis)


@op("ScatterElements")
def scatter_elements(x: Value, indices: Index, updates: Value, /, *, axis: int = 0, reduction: str = "none") -> Value:
    """Returns `x` with updates written (or added, multiplied...) at indices along one axis."""
    axis = axis_index(axis, x.ndim)
    index: list[Value] = list(_batch_index(indices.shape, indices.ndim))
    index[axis] = _from_front(indices, x.shape[axis])
    return _scatter(x, tuple(index), updates, reduction)


@op("ScatterND")
def scatter_nd(x: Value, indices: Index, updates: Value, /, *, reduction: str = "none") -> Value:
    """Returns `x` with updates written (or added, multiplied...) at the index vectors in the last axis of `indices`."""
    index = tuple(_from_front(indices[..., i], x.shape[i]) for i in range(indices.shape[-1]))
    return _scatter(x, index, updates, reduction)


@op("OneHot")
def one_hot(indices: Index, depth: Static, values: Value, /, *, axis: int = -1) -> Value:
    """Returns a new axis with values[1] at the index, if it lies within `depth`, and values[0] elsewhere."""
    count = int(np.ravel(depth)[0])
    rank = np.ndim(indices) + 1
    axis = axis_index(axis, rank)
    check_made((*np.shape(indices), count))
    m = xp(indices, values)
    positions = m.arange(count).reshape((count,) + (1,) * (rank - 1 - axis))
    index = m.expand_dims(m.where(indices < 0, indices + count, indices), axis)
    return m.where(index == positions, values[1], values[0])


@op("NonZero")
def non_zero(x: Static, /) -> Value:
    """Returns the indices of the elements that are not zero, one column each; their number must be known."""
    return np.asarray(np.nonzero(np.atleast_1d(x)), np.int64)


@op("Compress")
def compress(x: Value, condition: Static, /, *, axis: int | None = None) -> Value:
    """Returns the entries along an axis (of the flat tensor by default) where the condition holds."""
    return xp(x).take(x, np.flatnonzero(condition), axis)


@op("Unique")
def unique(x: Static, /, *, axis: int | None = None, sorted: int = 1) -> tuple[Value, ...]:
    """Returns distinct entries, their first indices, the index of each entry among them, and their counts."""
    values, first, inverse, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    if sorted != 1:
        order = np.argsort(first)
        values = np.take(values, order, 0 if axis is None else axis)
        first, counts, inverse = first[order], counts[order], np.argsort(order)[inverse]
    return values, first.astype(np.int64), np.ravel(inverse).astype(np.int64), counts.astype(np.int64)


@op("ReverseSequence")
def reverse_sequence(x: Value, lengths: Index, /, *, batch_axis: int = 1, time_axis: int = 0) -> Value:
    """Reverses the first `lengths` steps of each sequence."""
    if {batch_axis, time_axis} != {0, 1}:
        raise UnsupportedModelError("Batch and time are the first two axes", got=f"{batch_axis} and {time_axis}")
    m = xp(x, lengths)
    step = m.arange(x.shape[time_axis])
    step = step[:, None] if time_axis == 0 else step[None, :]
    length = lengths[None, :] if time_axis == 0 else lengths[:, None]
    index = m.where(step < length, length - 1 - step, step)
    return m.take_along_axis(x, index.reshape(index.shape + (1,) * (x.ndim - 2)), time_axis)
