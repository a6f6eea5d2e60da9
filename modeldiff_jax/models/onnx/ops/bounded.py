"""Data-dependent operators in bounded form: `size` rows, padded if fewer are real, and the number of real rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.graph.bounded import Padded, PaddedResults, padded_implementation, padded_shape_reader
from modeldiff_jax.models.graph.values import Value, astype, axis_index
from modeldiff_jax.models.onnx.registration import ONNX
from modeldiff_jax.runtime import x64


def _row_axis(attributes: Mapping[str, Any]) -> int:
    return int(attributes.get("axis") or 0)


def _nonzero(condition: Value, size: int) -> tuple[Value, Value]:
    """Returns the indices where a flat condition holds, and their number."""
    (indices,) = jnp.nonzero(condition, size=size, fill_value=0)
    return indices, jnp.count_nonzero(condition)


@padded_implementation("NonZero", domain=ONNX, axis=lambda attributes: 1)
def non_zero(x: Value, /, *, size: int) -> PaddedResults:
    """Returns the indices of the elements that are not zero, one column each."""
    x = jnp.atleast_1d(x)
    flat_indices, count = _nonzero(jnp.ravel(x != 0), size)
    return [(astype(jnp.stack(jnp.unravel_index(flat_indices, x.shape)), np.int64), 1)], count


@padded_implementation("Compress", domain=ONNX, axis=_row_axis)
def compress(x: Value, condition: Value, /, *, size: int, axis: int | None = None) -> PaddedResults:
    """Returns the entries along an axis (of the flat tensor by default) where the condition holds."""
    x, axis = (jnp.ravel(x), 0) if axis is None else (x, axis_index(axis, x.ndim))
    length = x.shape[axis]
    if condition.shape[0] > length:
        raise InvalidInputError("A condition is no longer than its axis", got=f"{condition.shape[0]} of {length}")
    indices, count = _nonzero(condition, size)
    return [(jnp.take(x, indices, axis, mode="clip"), axis)], count


@padded_implementation("Unique", domain=ONNX, axis=_row_axis)
def unique(x: Value, /, *, size: int, axis: int | None = None, sorted: int = 1) -> PaddedResults:
    """Returns distinct entries, their first indices, the index of each entry among them, and their counts."""
    x, axis = (jnp.ravel(x), 0) if axis is None else (x, axis_index(axis, x.ndim))
    n = x.shape[axis]
    values, first, inverse, counts = jnp.unique(
        x, return_index=True, return_inverse=True, return_counts=True, axis=axis, size=n
    )
    real, inverse = counts > 0, jnp.ravel(inverse)
    if sorted != 1:
        order = jnp.argsort(jnp.where(real, first, n))
        values, first, counts = jnp.take(values, order, axis), first[order], counts[order]
        inverse = jnp.argsort(order)[inverse]

    def resized(rows: Value, axis: int) -> Value:
        rows = jax.lax.slice_in_dim(rows, 0, min(size, n), axis=axis)
        return jnp.pad(rows, [(0, size - min(size, n) if i == axis else 0) for i in range(rows.ndim)])

    first, inverse, counts = (astype(values, np.int64) for values in (resized(first, 0), inverse, resized(counts, 0)))
    return [(resized(values, axis), axis), (first, 0), (inverse, None), (counts, 0)], jnp.count_nonzero(real)


@padded_implementation("NonMaxSuppression", domain=ONNX, axis=lambda attributes: 0)
def non_max_suppression(
    boxes: Value,
    scores: Value,
    most: Value = None,
    overlap: Value = None,
    threshold: Value = None,
    /,
    *,
    size: int,
    center_point_box: int = 0,
) -> PaddedResults:
    """Returns (batch, class, box) of the best boxes that overlap no better one."""
    boxes, scores = jax.lax.stop_gradient((boxes, scores))  # the choice of boxes has no derivative
    limit = 0 if overlap is None else jnp.reshape(overlap, ())
    most = 0 if most is None else jnp.reshape(x64.saturated(most), ())
    if center_point_box:
        half = boxes[..., 2:] / 2
        low, high = boxes[..., :2] - half, boxes[..., :2] + half
    else:
        low, high = jnp.minimum(boxes[..., :2], boxes[..., 2:]), jnp.maximum(boxes[..., :2], boxes[..., 2:])
    area = jnp.prod(high - low, -1)

    def of_class(low: Value, high: Value, area: Value, score: Value) -> tuple[Value, Value]:
        """Returns the order of the boxes by falling score, and which of the ordered boxes are selected."""
        order = jnp.argsort(-score, stable=True)
        low, high, area = low[order], high[order], area[order]
        candidates = jnp.ones(score.shape, bool) if threshold is None else score[order] > jnp.reshape(threshold, ())

        def proceed(state: tuple[Value, Value]) -> Value:
            candidates, selected = state
            return jnp.any(candidates) & (jnp.count_nonzero(selected) < most)

        def step(state: tuple[Value, Value]) -> tuple[Value, Value]:
            candidates, selected = state
            best = jnp.argmax(candidates)
            shared = jnp.prod(jnp.maximum(jnp.minimum(high[best], high) - jnp.maximum(low[best], low), 0), -1)
            overlaps = shared > limit * (area[best] + area - shared)
            return (candidates & ~overlaps).at[best].set(False), selected.at[best].set(True)

        _, selected = jax.lax.while_loop(proceed, step, (candidates, jnp.zeros(score.shape, bool)))
        return order, selected

    each_class = jax.vmap(of_class, in_axes=(None, None, None, 0))
    order, selected = jax.vmap(each_class)(low, high, area, scores)
    flat_indices, count = _nonzero(jnp.ravel(selected), size)
    batch, group, rank = jnp.unravel_index(flat_indices, selected.shape)
    real = (jnp.arange(size) < count)[:, None]
    rows = jnp.stack([batch, group, order[batch, group, rank]], -1)
    return [(astype(jnp.where(real, rows, 0), np.int64), 0)], count


@padded_shape_reader("Shape", domain=ONNX)
def shape(x: Padded, /, *, start: int = 0, end: int | None = None) -> Value:
    """Returns the sizes of the axes, with the number of real rows for the bounded axis."""
    first, last, _ = slice(start, end).indices(x.value.ndim)
    if not first <= x.axis < last:
        return np.asarray(x.value.shape[first:last], np.int64)
    sizes = [x.dimension.n_real if axis == x.axis else size for axis, size in enumerate(x.value.shape)]
    return astype(jnp.stack([jnp.asarray(size, np.int32) for size in sizes[first:last]]), np.int64)


@padded_shape_reader("Size", domain=ONNX)
def size(x: Padded, /) -> Value:
    """Returns the number of elements in real rows."""
    return astype(x.dimension.n_real * (x.value.size // x.dimension.size), np.int64)
