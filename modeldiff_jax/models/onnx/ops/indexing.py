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

# Exporters write some large number for "to the end"; an axis of symbolic size has no size to compare it with.
_FAR = 10**8


@op("Slice")
def slice_1(x: Value, /, *, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None = None) -> Value:
    """`x` from starts to ends along the given axes."""
    return slice_10(x, np.asarray(starts), np.asarray(ends), axes)


@op("Slice", since=10)
def slice_10(x: Value, starts: Static, ends: Static, axes: Static = None, steps: Static = None, /) -> Value:
    """`x` from starts to ends by steps along the given axes; python's rules for negative and far bounds."""
    first, last = sizes(starts), sizes(ends)
    over = tuple(range(len(first))) if axes is None else axis_indices(axes, x.ndim)
    by = (1,) * len(first) if steps is None else sizes(steps)
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(over, first, last, by, strict=True):
        open_end = isinstance(end, int) and (end >= _FAR if step > 0 else end <= -_FAR)
        open_start = isinstance(start, int) and (start <= -_FAR if step > 0 else start >= _FAR)
        index[axis] = slice(None if open_start else start, None if open_end else end, step)
    return x[tuple(index)]


def _from_front(indices: Value, size: Any) -> Value:
    """Indices counted from the front; known ones are checked."""
    if concrete(indices) and isinstance(size, int):
        found = np.asarray(indices)
        if found.size and not (-size <= found.min() and found.max() < size):
            raise InvalidInputError(
                "An index must lie within its axis", got=f"{found.min()} to {found.max()} of {size}"
            )
    return xp(indices).where(indices < 0, indices + size, indices)


@op("Gather")
def gather(x: Value, indices: Index, /, *, axis: int = 0) -> Value:
    """Entries of `x` along an axis, at indices of any shape."""
    at = axis_index(axis, x.ndim)
    found = _from_front(indices, x.shape[at])
    if concrete(x, found):
        return np.take(x, found.astype(np.int64), at)
    if concrete(found) and np.ndim(found) == 0:  # a slice: cheaper than a gather, and so is its derivative
        return jax.lax.index_in_dim(jnp.asarray(x), found.item(), at, keepdims=False)
    if x.shape[at] == 0:  # nothing to take; jnp.take gives such a result the wrong shape
        return jnp.zeros((*x.shape[:at], *found.shape, *x.shape[at + 1 :]), x.dtype)
    return jnp.take(x, found, at, mode="clip")


@op("GatherElements")
def gather_elements(x: Value, indices: Index, /, *, axis: int = 0) -> Value:
    """Along one axis the entry each index names, all other axes in step."""
    at = axis_index(axis, x.ndim)
    in_step = tuple(slice(None) if i == at else slice(0, n) for i, n in enumerate(indices.shape))
    return xp(x, indices).take_along_axis(x[in_step], _from_front(indices, x.shape[at]), at)


@op("GatherND")
def gather_nd(x: Value, indices: Index, /, *, batch_dims: int = 0) -> Value:
    """Entries or slices of `x` at the index vectors in the last axis of `indices`."""
    index = _batch_index(indices.shape[:batch_dims], indices.ndim - 1)
    index += tuple(_from_front(indices[..., i], x.shape[batch_dims + i]) for i in range(indices.shape[-1]))
    x = x if concrete(x, indices) else jnp.asarray(x)
    return x[index] if index else xp(x).broadcast_to(x, (*indices.shape[:-1], *x.shape))


def _batch_index(sizes_: Sequence[int], rank: int) -> tuple[np.ndarray, ...]:
    return tuple(np.arange(size).reshape((1,) * i + (size,) + (1,) * (rank - 1 - i)) for i, size in enumerate(sizes_))


_SCATTERS = {"none": "set", "add": "add", "mul": "multiply", "min": "min", "max": "max"}
_UFUNCS = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


def _scatter(x: Value, index: tuple[Value, ...], updates: Value, reduction: str) -> Value:
    if reduction in ("add", "mul") and is_narrow(x):  # several updates of one place
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
    """`x` with updates put where the indices along one axis say."""
    return scatter_elements(x, indices, updates, axis=axis)


@op("ScatterElements")
def scatter_elements(x: Value, indices: Index, updates: Value, /, *, axis: int = 0, reduction: str = "none") -> Value:
    """`x` with updates put (or added, multiplied...) where the indices along one axis say."""
    at = axis_index(axis, x.ndim)
    index: list[Value] = list(_batch_index(indices.shape, indices.ndim))
    index[at] = _from_front(indices, x.shape[at])
    return _scatter(x, tuple(index), updates, reduction)


@op("ScatterND")
def scatter_nd(x: Value, indices: Index, updates: Value, /, *, reduction: str = "none") -> Value:
    """`x` with updates put (or added, multiplied...) at the index vectors in the last axis of `indices`."""
    index = tuple(_from_front(indices[..., i], x.shape[i]) for i in range(indices.shape[-1]))
    return _scatter(x, index, updates, reduction)


@op("OneHot")
def one_hot(indices: Index, depth: Static, values: Value, /, *, axis: int = -1) -> Value:
    """A new axis with values[1] at the index and values[0] elsewhere; an index outside gives values[0] only."""
    count = int(np.ravel(depth)[0])
    rank = np.ndim(indices) + 1
    at = axis_index(axis, rank)
    check_made((*np.shape(indices), count))
    m = xp(indices, values)
    places = m.arange(count).reshape((count,) + (1,) * (rank - 1 - at))
    found = m.expand_dims(m.where(indices < 0, indices + count, indices), at)
    return m.where(found == places, values[1], values[0])


@op("NonZero")
def non_zero(x: Static, /) -> Value:
    """Indices of the elements that are not zero, one column each; how many there are must be known."""
    return np.asarray(np.nonzero(np.atleast_1d(x)), np.int64)


@op("Compress")
def compress(x: Value, condition: Static, /, *, axis: int | None = None) -> Value:
    """Entries along an axis (of the flat tensor by default) where the condition holds."""
    kept = np.flatnonzero(condition)
    return xp(x).take(x, kept, axis)


@op("Unique")
def unique(x: Static, /, *, axis: int | None = None, sorted: int = 1) -> tuple[Value, ...]:
    """Distinct entries, their first places, the place of each entry among them, and their counts."""
    values, first, inverse, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    if sorted != 1:
        order = np.argsort(first)
        values = np.take(values, order, 0 if axis is None else axis)
        first, counts, inverse = first[order], counts[order], np.argsort(order)[inverse]
    return values, first.astype(np.int64), np.ravel(inverse).astype(np.int64), counts.astype(np.int64)


@op("ReverseSequence")
def reverse_sequence(x: Value, lengths: Index, /, *, batch_axis: int = 1, time_axis: int = 0) -> Value:
    """Each sequence's first `lengths` steps in reverse order, the others as they are."""
    if {batch_axis, time_axis} != {0, 1}:
        raise UnsupportedModelError("Batch and time are the first two axes", got=f"{batch_axis} and {time_axis}")
    m = xp(x, lengths)
    step = m.arange(x.shape[time_axis])
    step = step[:, None] if time_axis == 0 else step[None, :]
    length = lengths[None, :] if time_axis == 0 else lengths[:, None]
    index = m.where(step < length, length - 1 - step, step)
    return m.take_along_axis(x, index.reshape(index.shape + (1,) * (x.ndim - 2)), time_axis)
