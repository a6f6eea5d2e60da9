"""Resampling of axes one by one, with weights known on the host: nearest, linear and cubic.

Each axis is resampled by a linear map. Nearest sampling gathers entries, and upsampling by a whole number is a
broadcast; linear and cubic sampling multiply by a small matrix, whose derivative is a matrix product too, where that of
a gather would be a slow scatter.

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
    """Resamples some axes, beginning with those that shrink.

    Args:
      x: the array.
      samplings: axis -> integers (resized,), the input index for each output index, or floats (resized, size), the
        weights of all input entries for each output index.

    Returns:
      The resampled array, in the type of `x`, except that interpolated integers are float32.
    """
    dtype, resized = x.dtype, x
    for axis, sampling in sorted(samplings.items(), key=lambda item: len(item[1]) / max(x.shape[item[0]], 1)):
        resized = _gathered(resized, axis, sampling) if sampling.ndim == 1 else _interpolated(resized, axis, sampling)
    return resized.astype(dtype) if jnp.issubdtype(dtype, jnp.floating) else resized


def _gathered(x: Array, axis: int, indices: np.ndarray) -> Array:
    size, resized = x.shape[axis], len(indices)
    if not (size and resized):
        return _empty(x, axis, resized)
    repeats = resized // size
    if np.array_equal(indices, np.repeat(np.arange(size), repeats)):
        shape = (*x.shape[: axis + 1], repeats, *x.shape[axis + 1 :])
        repeated = jnp.broadcast_to(jnp.expand_dims(x, axis + 1), shape)
        return repeated.reshape(*x.shape[:axis], resized, *x.shape[axis + 1 :])
    return jnp.take(x, indices, axis, mode="clip", indices_are_sorted=bool((np.diff(indices) >= 0).all()))


def _interpolated(x: Array, axis: int, weights: np.ndarray) -> Array:
    wide = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize >= 4 else jnp.float32
    if not x.shape[axis]:
        return _empty(x, axis, len(weights)).astype(wide)
    matrix = jnp.asarray(weights, wide)
    product = jnp.tensordot(matrix, x.astype(wide), ((1,), (axis,)), precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(product, 0, axis)


def _empty(x: Array, axis: int, resized: int) -> Array:
    return jnp.zeros((*x.shape[:axis], resized, *x.shape[axis + 1 :]), x.dtype)


def interpolation_weights(
    coordinates: np.ndarray,
    size: int,
    *,
    method: Literal["linear", "cubic"],
    widening: float = 1.0,
    cubic_coefficient: float = -0.75,
    exclude_outside: bool = False,
) -> np.ndarray:
    """Returns the matrix that interpolates one axis.

    Args:
      coordinates: (resized,), coordinate of each output entry in the input. Entries before index 0 or after the last
        one are read as the first and the last entry.
      size: size of the input's axis.
      method: linear interpolation, or cubic convolution (Keys 1981).
      widening: factor by which the kernel is stretched against aliasing: the one by which the axis shrinks.
      cubic_coefficient: a in Keys' equation 4.
      exclude_outside: whether entries outside of the input have weight 0, with the others scaled to a sum of 1.

    Returns:
      float64 (resized, size); each row adds up to 1.
    """
    if not size:
        return np.zeros((len(coordinates), 0))
    kernel, radius = (_triangle, 1) if method == "linear" else (_cubic, 2)
    centre = coordinates.astype(np.float64)
    if method == "linear" and widening == 1:
        centre = np.clip(centre, 0, size - 1)
    taps = np.arange(np.floor(-radius * widening), np.ceil(radius * widening) + 1)
    entries = np.floor(centre)[:, None] + taps
    weights = kernel((entries - centre[:, None]) / widening, cubic_coefficient)
    if exclude_outside:
        weights = np.where((entries >= 0) & (entries < size), weights, 0)
    weights = weights / weights.sum(1, keepdims=True)
    matrix = np.zeros((len(coordinates), size))
    rows = np.broadcast_to(np.arange(len(coordinates))[:, None], entries.shape)
    np.add.at(matrix, (rows, np.clip(entries, 0, size - 1).astype(np.int64)), weights)
    return matrix


def _triangle(distance: np.ndarray, a: float) -> np.ndarray:
    return np.maximum(1 - np.abs(distance), 0)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Returns the cubic convolution kernel (Keys 1981, equation 4)."""
    d = np.abs(distance)
    inner = ((a + 2) * d - (a + 3)) * d * d + 1
    outer = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.asarray(np.where(d <= 1, inner, np.where(d < 2, outer, 0)))
