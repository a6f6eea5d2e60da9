"""Resampling of single axes with weights known on the host: nearest, linear and cubic.

Each axis is a linear map of its own. Nearest sampling picks entries, and upsampling by a whole number is a broadcast;
linear and cubic sampling multiply by a small matrix, whose derivative is a matrix product too, where a gather's would
be a slow scatter.

Types: any for nearest sampling; floating types are accumulated in float32 or wider, integers resampled in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num


def resample(x: Num[Array, ...], samplings: Mapping[int, np.ndarray]) -> Num[Array, ...]:
    """Resamples some axes, those first that shrink.

    Args:
      x: the array.
      samplings: axis -> integers (resized,), the entry to take for each place, or floats (resized, size), the weight of
        each entry for each place.

    Returns:
      The resampled array: of the type of `x`, except that interpolated integers are float32.
    """
    dtype, resized = x.dtype, x
    for axis, sampling in sorted(samplings.items(), key=lambda item: len(item[1]) / max(x.shape[item[0]], 1)):
        resized = _picked(resized, axis, sampling) if sampling.ndim == 1 else _interpolated(resized, axis, sampling)
    return resized.astype(dtype) if jnp.issubdtype(dtype, jnp.floating) else resized


def _picked(x: Array, axis: int, entries: np.ndarray) -> Array:
    size, resized = x.shape[axis], len(entries)
    if not (size and resized):
        return _empty(x, axis, resized)
    times = resized // size
    if np.array_equal(entries, np.repeat(np.arange(size), times)):
        shape = (*x.shape[: axis + 1], times, *x.shape[axis + 1 :])
        spread = jnp.broadcast_to(jnp.expand_dims(x, axis + 1), shape)
        return spread.reshape(*x.shape[:axis], resized, *x.shape[axis + 1 :])
    return jnp.take(x, entries, axis, mode="clip", indices_are_sorted=bool((np.diff(entries) >= 0).all()))


def _interpolated(x: Array, axis: int, weights: np.ndarray) -> Array:
    wide = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize >= 4 else jnp.float32
    if not x.shape[axis]:
        return _empty(x, axis, len(weights)).astype(wide)
    matrix = jnp.asarray(weights, wide)
    moved = jnp.tensordot(matrix, x.astype(wide), ((1,), (axis,)), precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(moved, 0, axis)


def _empty(x: Array, axis: int, resized: int) -> Array:
    return jnp.zeros((*x.shape[:axis], resized, *x.shape[axis + 1 :]), x.dtype)


def interpolation_weights(
    places: np.ndarray,
    size: int,
    *,
    method: Literal["linear", "cubic"],
    widening: float = 1.0,
    cubic_coefficient: float = -0.75,
    exclude_outside: bool = False,
) -> np.ndarray:
    """Returns the matrix that interpolates one axis.

    Args:
      places: (resized,), where each entry of the result lies in the input; entries before 0 or beyond the last one are
        the first and the last entry.
      size: of the input's axis.
      method: linear interpolation, or cubic convolution (Keys 1981).
      widening: by how much the kernel is stretched, against aliasing: the factor by which the axis shrinks.
      cubic_coefficient: a in Keys' equation 4.
      exclude_outside: weights of entries outside count nothing, and the others add up to 1 without them.

    Returns:
      float64 (resized, size), each row adding up to 1.
    """
    if not size:
        return np.zeros((len(places), 0))
    kernel, reach = (_triangle, 1) if method == "linear" else (_cubic, 2)
    centre = places.astype(np.float64)
    if method == "linear" and widening == 1:
        centre = np.clip(centre, 0, size - 1)
    taps = np.arange(np.floor(-reach * widening), np.ceil(reach * widening) + 1)
    entries = np.floor(centre)[:, None] + taps
    weights = kernel((entries - centre[:, None]) / widening, cubic_coefficient)
    if exclude_outside:
        weights = np.where((entries >= 0) & (entries < size), weights, 0)
    weights = weights / weights.sum(1, keepdims=True)
    matrix = np.zeros((len(places), size))
    rows = np.broadcast_to(np.arange(len(places))[:, None], entries.shape)
    np.add.at(matrix, (rows, np.clip(entries, 0, size - 1).astype(np.int64)), weights)
    return matrix


def _triangle(distance: np.ndarray, a: float) -> np.ndarray:
    return np.maximum(1 - np.abs(distance), 0)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """The cubic convolution kernel (Keys 1981, equation 4)."""
    d = np.abs(distance)
    inner = ((a + 2) * d - (a + 3)) * d * d + 1
    outer = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.asarray(np.where(d <= 1, inner, np.where(d < 2, outer, 0)))
