"""Matrix products and convolutions of 8-bit integers, exact, in the float32 units every device is fast at.

An integer less its zero point has at most 9 bits, and float32 adds whole numbers exactly, in any order, below 2**24:
that holds for sums of 258 products, and of 514 where one side is int8 around 0. Longer sums are cut into pieces of that
length and added in int32. The pieces cost no more multiplications than the whole. XLA's own integer convolution on CPU
takes 25 to 33 times as long as its float32 one.

Types: int8 and uint8, in any combination; sums wrap round as int32 does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.convolution import convolve
from modeldiff_jax.kernels.depthwise_conv import Padding
from modeldiff_jax.kernels.inputs import AnyArray
from modeldiff_jax.kernels.rounding import saturate

_EXACT = 2**24
"""Up to here float32 holds every whole number."""


def integer_matmul(
    a: Integer[AnyArray, ...],
    a_zero: Integer[AnyArray, ...] | None,
    b: Integer[AnyArray, ...],
    b_zero: Integer[AnyArray, ...] | None,
) -> Integer[Array, ...]:
    """Returns (a - a_zero) (b - b_zero) in int32.

    Args:
      a, b: matrices, stacks of them, or vectors, as `jnp.matmul` takes them.
      a_zero: one zero point, one for each row of `a`, or None for 0.
      b_zero: one zero point, one for each column of `b`, or None for 0.

    Raises:
      InvalidInputError: the inner sizes differ.
    """
    most = _EXACT // max(largest_magnitude(a.dtype, a_zero) * largest_magnitude(b.dtype, b_zero), 1)
    left, right = _centred(a, a_zero, _as_rows), _centred(b, b_zero, _as_columns)
    if left.shape[-1] != right.shape[max(right.ndim - 2, 0)]:
        raise InvalidInputError("The factors' inner sizes are equal", got=f"{left.shape} and {right.shape}")

    def product(part: slice) -> Array:
        columns = right[part] if right.ndim == 1 else right[..., part, :]
        return jnp.matmul(left[..., part], columns, precision=jax.lax.Precision.HIGHEST)

    return _total([product(part) for part in _parts(left.shape[-1], most)] or [jnp.matmul(left, right)])


def integer_convolution(
    x: Integer[AnyArray, "n c ..."],
    x_zero: Integer[AnyArray, ...] | None,
    w: Integer[AnyArray, "o i ..."],
    w_zero: Integer[AnyArray, ...] | None,
    *,
    strides: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
    groups: int = 1,
) -> Integer[Array, "n o ..."]:
    """Returns the convolution of x - x_zero (0 in the padding) with w - w_zero, in int32.

    Args:
      x: (N, C, spatial...). w: (O, C / groups, taps...).
      x_zero: one zero point or None for 0. w_zero: one, one for each output channel, or None.
      strides, padding, dilation, groups: as in `convolve`.
    """
    most = _EXACT // max(largest_magnitude(x.dtype, x_zero) * largest_magnitude(w.dtype, w_zero), 1)
    wide = _centred(x, x_zero, lambda values: values.reshape(1, -1, *(1,) * (x.ndim - 2)))
    filters = _centred(w, w_zero, lambda values: values.reshape(-1, *(1,) * (w.ndim - 1)))
    return _total(_pieces(wide, filters, tuple(strides), tuple(padding), tuple(dilation), groups, most))


def requantize(
    total: Integer[AnyArray, ...], scale: Float[AnyArray, ...], zero_point: Integer[AnyArray, ...]
) -> Integer[Array, ...]:
    """Returns round(total * scale) + zero_point, halves to even, saturated in the zero point's type.

    Args:
      total: int32.
      scale: float32, to broadcast against `total`.
      zero_point: one, of the result's type.
    """
    whole = jnp.rint(total.astype(jnp.float32) * scale) + jnp.asarray(zero_point, jnp.float32).reshape(())
    return saturate(whole, np.dtype(zero_point.dtype))


def largest_magnitude(dtype: Any, zero_point: Any) -> int:
    """Returns a bound on |x - zero_point| for `x` of a type; a closer one where the zero point is a numpy array."""
    info = np.iinfo(dtype)
    low, high = int(info.min), int(info.max)
    if zero_point is None:
        return max(-low, high)
    if not isinstance(zero_point, (np.ndarray, np.generic)) or not zero_point.size:
        return high - low
    zeros = zero_point.astype(np.int64)
    return max(high - int(zeros.min()), int(zeros.max()) - low)


def _centred(x: AnyArray, zero_point: Any, align: Callable[[Array], Array]) -> Array:
    """Returns `x - zero_point` in float32; `align` sets a vector of zero points on its axis."""
    wide = jnp.asarray(x).astype(jnp.float32)
    if zero_point is None:
        return wide
    offset = jnp.asarray(zero_point).astype(jnp.float32)
    return wide - (offset.reshape(()) if offset.size == 1 else align(offset))


def _as_rows(values: Array) -> Array:
    return values[:, None] if values.ndim == 1 else values


def _as_columns(values: Array) -> Array:
    return values[None] if values.ndim == 1 else values


def _parts(length: int, most: int) -> list[slice]:
    """Cuts `length` into as few, equally long pieces of at most `most` as possible."""
    n = -(-length // max(most, 1))
    ends = [length * i // n for i in range(n + 1)] if n else []
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


def _total(pieces: Sequence[Array]) -> Array:
    """Adds whole numbers in float32 up in int32."""
    first, *others = (piece.astype(jnp.int32) for piece in pieces)
    for other in others:
        first = first + other
    return first


_Padding = tuple[tuple[Any, Any], ...]


def _pieces(
    x: Array, w: Array, strides: tuple[int, ...], padding: _Padding, dilation: tuple[int, ...], groups: int, most: int
) -> list[Array]:
    """Returns convolutions of at most `most` products an output, which add up to the whole one.

    A filter is cut along its channels, and where one channel is too long along its taps.
    """
    products = int(np.prod(w.shape[1:]))
    if products <= most or max(w.shape[1:]) == 1:
        return [convolve(x, w, strides=strides, padding=padding, dilation=dilation, groups=groups)]
    axis = 1 if w.shape[1] > 1 else 1 + int(np.argmax(w.shape[1:]))
    pieces = []
    for part in _parts(w.shape[axis], most * w.shape[axis] // products):
        some, cut = w[(slice(None),) * axis + (part,)], padding
        if axis == 1:
            grouped = x.reshape(x.shape[0], groups, -1, *x.shape[2:])[:, :, part]
            seen = grouped.reshape(x.shape[0], -1, *x.shape[2:])
        else:  # the input stays; its padding makes up for the taps left out
            i, seen = axis - 2, x
            (before, after), step = padding[i], dilation[i]
            moved = (before - part.start * step, after - (w.shape[axis] - part.stop) * step)
            cut = (*padding[:i], moved, *padding[i + 1 :])
        pieces += _pieces(seen, some, strides, cut, dilation, groups, most)
    return pieces
