"""Exact matrix products and convolutions of 8-bit integers, computed in float32, for which every device is fast.

An integer minus its zero point has at most 9 bits, and float32 adds whole numbers below 2**24 exactly, in any order:
that holds for sums of 258 products, and of 514 if one factor is int8 with zero point 0. Longer sums are computed as
partial sums of that length, which are added in int32 and cost no further multiplications. XLA's integer convolution on
CPU takes 25 to 33 times as long as its float32 one.

Types: int8 and uint8, in any combination; sums wrap round as int32 does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial, reduce
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
"""Largest number up to which float32 holds every whole number."""
SHORTEST_PIECE = _EXACT // 255**2
"""Products in a sum that is exact whatever the zero points are; a filter's channel is split along more taps."""
_WRITTEN_OUT = 32
"""More pieces are added in a loop: with 256 written out, one product compiles for half a minute."""


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

    return _sum_of_pieces(
        partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST),
        left,
        left.ndim - 1,
        right,
        max(right.ndim - 2, 0),
        most,
    )


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
    """Returns the convolution of x - x_zero, padded with 0, with w - w_zero, in int32.

    Args:
      x: (N, C, spatial...). w: (O, C / groups, taps...).
      x_zero: one zero point or None for 0. w_zero: one, one for each output channel, or None.
      strides, padding, dilation, groups: as in `convolve`.
    """
    most = _EXACT // max(largest_magnitude(x.dtype, x_zero) * largest_magnitude(w.dtype, w_zero), 1)
    wide = _centred(x, x_zero, lambda values: values.reshape(1, -1, *(1,) * (x.ndim - 2)))
    filters = _centred(w, w_zero, lambda values: values.reshape(-1, *(1,) * (w.ndim - 1)))
    return _in_pieces(wide, filters, tuple(strides), tuple(padding), tuple(dilation), groups, most)


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
    """Returns a bound on |x - zero_point| for `x` of a type; a tighter one if the zero point is a numpy array."""
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
    """Returns the fewest slices of nearly equal length, at most `most`, that cover `length` entries."""
    n = -(-length // max(most, 1))
    ends = [length * i // n for i in range(n + 1)] if n else []
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


def _sum_of_pieces(
    product: Callable[[Array, Array], Array], a: Array, a_axis: int, b: Array, b_axis: int, length: int
) -> Array:
    """Returns the sum, in int32, of products of whole numbers in float32.

    Args:
      product: (a, b) -> a product that sums over the two axes.
      a, b: factors. a_axis, b_axis: equally long.
      length: of the longest pieces of these axes whose product is exact.
    """

    def of_piece(first: Any, size: int) -> Array:
        cut = jax.lax.dynamic_slice_in_dim
        return product(cut(a, first, size, a_axis), cut(b, first, size, b_axis)).astype(jnp.int32)

    parts = _parts(a.shape[a_axis], length)
    if len(parts) <= _WRITTEN_OUT:
        if len(parts) <= 1:
            return product(a, b).astype(jnp.int32)
        return reduce(jnp.add, (of_piece(part.start, part.stop - part.start) for part in parts))
    size = max(part.stop - part.start for part in parts)
    a, b = (_lengthened(v, axis, size * len(parts)) for v, axis in ((a, a_axis), (b, b_axis)))
    return jax.lax.fori_loop(1, len(parts), lambda i, total: total + of_piece(i * size, size), of_piece(0, size))


def _lengthened(x: Array, axis: int, size: int) -> Array:
    ends = [(0, 0)] * x.ndim
    ends[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, ends)


_Padding = tuple[tuple[Any, Any], ...]


def _in_pieces(
    x: Array, w: Array, strides: tuple[int, ...], padding: _Padding, dilation: tuple[int, ...], groups: int, most: int
) -> Array:
    """Returns the sum, in int32, of convolutions of at most `most` products for each output.

    A filter is split along its channels and, if one channel has too many taps, along these.
    """
    products = int(np.prod(w.shape[1:]))
    if products <= most or max(w.shape[1:]) == 1:
        whole = convolve(x, w, strides=strides, padding=padding, dilation=dilation, groups=groups)
        return whole.astype(jnp.int32)
    if w.shape[1] > 1:

        def convolved(grouped: Array, filters: Array) -> Array:
            merged = grouped.reshape(x.shape[0], -1, *x.shape[2:])
            return _in_pieces(merged, filters, strides, padding, dilation, groups, most)

        channels = max(most * w.shape[1] // products, 1)
        return _sum_of_pieces(convolved, x.reshape(x.shape[0], groups, -1, *x.shape[2:]), 2, w, 1, channels)
    axis = 1 + int(np.argmax(w.shape[1:]))
    total: Any = 0
    for part in _parts(w.shape[axis], most * w.shape[axis] // products):
        # the whole input; its padding is reduced by the extent of the other taps
        (before, after), step = padding[axis - 2], dilation[axis - 2]
        shifted = (before - part.start * step, after - (w.shape[axis] - part.stop) * step)
        part_padding = (*padding[: axis - 2], shifted, *padding[axis - 1 :])
        total = total + _in_pieces(x, w[(slice(None),) * axis + (part,)], strides, part_padding, dilation, groups, most)
    return total
