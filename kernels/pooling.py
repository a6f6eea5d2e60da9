"""Pooling: maxima, means and p-norms over windows that move along the spatial axes.

XLA's window reductions have a slow derivative on CPU. Here windows are shifted slices, combined one axis after another:
for a 3 x 3 maximum over 64 channels of 112 x 112 the gradient takes about half the time with stride 2 and a seventh
with stride 1, and the values take no longer.

Types: maxima of any type; means and norms of any floating type, those of float16 and bfloat16 accumulated in float32.
NaN: the result of a window with NaN is NaN. Gradients: that of a maximum goes to the first of equal entries.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.rounding import divide, finite_range

Layout: TypeAlias = Literal["channels_first", "channels_last"]

_MOST_SLICES = 128
"""With more taps along an axis, a program with a slice for each takes longer to compile than it saves."""


@dataclass(frozen=True, slots=True)
class PoolingWindow:
    """The windows along one spatial axis.

    Attributes:
      taps: number of entries of a window. stride: distance between windows. dilation: distance between taps.
      before, after: padding, as requested.
      beyond: further padding at the end, which only the last window covers.
      size: size of the axis. outputs: number of windows.
    """

    taps: int
    stride: int
    dilation: int
    before: int
    after: int
    beyond: int
    size: int
    outputs: int

    def slices(self, padded: Num[Array, ...], axis: int) -> list[Array]:
        """Returns, for each tap, the entries of the padded array that it reads in all windows."""
        extent = self.stride * (self.outputs - 1) + 1
        return [
            jax.lax.slice_in_dim(padded, i * self.dilation, i * self.dilation + extent, self.stride, axis)
            for i in range(self.taps)
        ]

    def stacked(self, padded: Num[Array, ...], axis: int) -> Num[Array, ...]:
        """Returns the padded array at each tap of all windows, the taps as the last axis."""
        if self.taps <= _MOST_SLICES:
            return jnp.stack(self.slices(padded, axis), -1)
        return jnp.moveaxis(jnp.take(padded, self.positions() + self.before, axis), axis + 1, -1)

    def filled(self, x: Num[Array, ...], axis: int, fill: Any) -> list[Array]:
        """Returns, for each tap, the entries of the unpadded array that it reads in all windows, `fill` in the padding.

        With a stride above 1 each slice is padded by itself, which takes a quarter of the time of padding the array.
        """
        if self.stride == 1 or not isinstance(self.size, int):
            return self.slices(_padded(x, (self,), fill, first=axis), axis)
        taps = []
        for shift in range(-self.before, (self.taps - 1) * self.dilation - self.before + 1, self.dilation):
            first = min(max(-(shift // self.stride), 0), self.outputs)
            last = min(max((self.size - 1 - shift) // self.stride + 1, first), self.outputs)
            positions = np.arange(first, last) * self.stride + shift
            low, high = (positions[0], positions[-1] + 1) if positions.size else (0, 0)
            inside = jax.lax.slice_in_dim(x, int(low), int(high), self.stride, axis)
            ends = [(0, 0, 0)] * x.ndim
            ends[axis] = (first, self.outputs - last, 0)
            taps.append(jax.lax.pad(inside, jnp.asarray(fill, x.dtype), ends))
        return taps

    def positions(self) -> np.ndarray:
        """Returns the position of each tap of each window in the unpadded axis, (outputs, taps)."""
        return np.arange(self.outputs)[:, None] * self.stride + np.arange(self.taps) * self.dilation - self.before


def pooling_window(
    size: Any, taps: int, *, stride: int = 1, dilation: int = 1, before: int = 0, after: int = 0, ceil: bool = False
) -> PoolingWindow:
    """Returns the windows along one axis.

    Args:
      size: size of the axis, an int or a symbolic size.
      taps, stride, dilation: of the windows, in entries.
      before, after: padding, in entries.
      ceil: whether a last window that begins within the input, or the padding before it, may end beyond the padding.

    Raises:
      InvalidInputError: a window size, stride or dilation is not positive, a pad is negative, or no window fits.
    """
    if min(taps, stride, dilation) < 1 or (isinstance(before, int) and min(before, after) < 0):
        raise InvalidInputError(
            "Window sizes, strides and dilations are positive, pads not negative",
            got=f"{taps}, {stride}, {dilation}, {before} and {after}",
        )
    extent = (taps - 1) * dilation + 1
    last_start = size + before + after - extent
    outputs = last_start // stride + 1
    if ceil:
        outputs = -(-last_start // stride) + 1
        if (outputs - 1) * stride >= size + before:
            outputs -= 1
    if isinstance(last_start, int) and outputs < 1:
        raise InvalidInputError("A pooling window must fit its padded input", got=f"{extent} over {size}")
    beyond = max((outputs - 1) * stride + extent - (size + before + after), 0) if ceil else 0
    return PoolingWindow(taps, stride, dilation, before, after, beyond, size, outputs)


def max_pool(
    x: Num[Array, "n ..."], windows: Sequence[PoolingWindow], *, layout: Layout = "channels_first"
) -> Num[Array, "n ..."]:
    """Returns the largest entry of each window; padding counts only in a window of nothing but padding.

    Args:
      x: (N, C, spatial...), or (N, spatial..., C) with `channels_last`.
      windows: one for each spatial axis.
      layout: axis of the channels in `x` and in the result.
    """
    return _in_layout(lambda x: _combined(x, windows, _larger, _least(x.dtype)), layout, x)


def max_pool_indices(
    x: Num[Array, "n c ..."],
    largest: Num[Array, "n c ..."],
    windows: Sequence[PoolingWindow],
    *,
    column_major: bool = False,
) -> Int[Array, "n c ..."]:
    """Returns the index of each window's largest entry (or NaN) in the flat input, the first of equal ones.

    It is never the index of padding, although an entry may be as low as the value that padding is filled with; for a
    window of nothing but padding it is -1.

    Args:
      x: (N, C, spatial...).
      largest: result of `max_pool` for `x`.
      windows: one for each spatial axis.
      column_major: whether the first spatial axis varies fastest in the flat input, not the last one.
    """
    taps = _padded(x, windows, _least(x.dtype), first=2)[..., None]
    for axis, window in enumerate(windows, start=2):  # (n, c, outputs..., taps of all axes, the last axis fastest)
        stacked = window.stacked(taps, axis)
        taps = stacked.reshape(*stacked.shape[:-2], stacked.shape[-2] * stacked.shape[-1])
    spatial = [w.size for w in windows]
    weights = np.cumprod([1, *spatial[:-1]]) if column_major else np.cumprod([1, *spatial[:0:-1]])[::-1]
    # flat index of each tap of each window within its channel, and whether it is not padding: (outputs..., taps)
    flat: np.ndarray = np.zeros((1,), np.int64)
    inside: np.ndarray = np.ones((1,), bool)
    for i, (window, weight) in enumerate(zip(windows, weights, strict=True)):
        shape = (1,) * i + (window.outputs,) + (1,) * (len(windows) - 1 - i) + (1, -1)
        positions = window.positions().reshape(shape)
        flat = flat[..., :, None] + positions * weight
        inside = inside[..., :, None] & (positions >= 0) & (positions < window.size)
        flat, inside = flat.reshape(*flat.shape[:-2], -1), inside.reshape(*inside.shape[:-2], -1)
    is_largest = jnp.asarray(inside)[None, None] & ((taps == largest[..., None]) | (taps != taps))
    tap = jnp.argmax(is_largest, -1)
    index_in_channel = jnp.take_along_axis(jnp.asarray(flat)[None, None], tap[..., None], -1)[..., 0]
    channel = jnp.arange(x.shape[0] * x.shape[1]).reshape((x.shape[0], x.shape[1]) + (1,) * len(windows))
    index = channel * int(np.prod(spatial)) + index_in_channel
    has_entry = jnp.asarray(inside).any(-1)[None, None]
    return index if inside.any(-1).all() else jnp.where(has_entry, index, -1)


def average_pool(
    x: Float[Array, "n ..."],
    windows: Sequence[PoolingWindow],
    *,
    count_padding: bool = False,
    layout: Layout = "channels_first",
) -> Float[Array, "n ..."]:
    """Returns the mean of each window.

    Args:
      x: (N, C, spatial...), or (N, spatial..., C) with `channels_last`.
      windows: one for each spatial axis.
      count_padding: whether padding counts as zeros; entries beyond the padding never count.
      layout: axis of the channels in `x` and in the result.
    """

    def averaged(x: Array) -> Array:
        total = _combined(_accumulated(x), windows, jnp.add, 0)
        return _mean(total, windows, count_padding, first=1).astype(x.dtype)

    return _in_layout(averaged, layout, x)


def average_pool_in_row_order(
    x: Float[Array, "n c ..."], windows: Sequence[PoolingWindow], *, count_padding: bool = False
) -> Float[Array, "n c ..."]:
    """Returns the mean of each window of (N, C, spatial...), whose taps are added one by one, row by row.

    `average_pool` sums over one axis after another; the last bits differ.
    """
    padded = _padded(x, windows, 0, first=2)
    counts, dilation = [w.taps for w in windows], [w.dilation for w in windows]
    lengths = (*x.shape[:2], *(w.stride * (w.outputs - 1) + 1 for w in windows))
    strides = (slice(None), slice(None), *(slice(None, None, w.stride) for w in windows))
    if math.prod(counts) <= _MOST_SLICES:
        taps = [padded]
        for axis, window in enumerate(windows, start=2):
            taps = [piece for tap in taps for piece in window.slices(tap, axis)]
        return _mean(functools.reduce(jnp.add, taps), windows, count_padding, first=2)

    def at_tap(i: Any) -> Array:
        starts = (n * step for n, step in zip(jnp.unravel_index(i, counts), dilation, strict=True))
        return jax.lax.dynamic_slice(padded, (0, 0, *starts), lengths)[strides]

    total = jax.lax.fori_loop(1, math.prod(counts), lambda i, total: total + at_tap(i), at_tap(0))
    return _mean(total, windows, count_padding, first=2)


def lp_pool(
    x: Float[Array, "n ..."], windows: Sequence[PoolingWindow], p: float, *, layout: Layout = "channels_first"
) -> Float[Array, "n ..."]:
    """Returns the p-norm of each window, whose gradient at 0 is 0.

    Args:
      x: (N, C, spatial...), or (N, spatial..., C) with `channels_last`.
      windows: one for each spatial axis.
      p: positive.
      layout: axis of the channels in `x` and in the result.
    """

    def norms(x: Array) -> Array:
        return _root(_combined(_raised(_accumulated(x), p), windows, jnp.add, 0), p).astype(x.dtype)

    return _in_layout(norms, layout, x)


def global_average_pool(x: Float[Array, "n c ..."]) -> Float[Array, "n c ..."]:
    """Returns the mean of each channel of (N, C, spatial...), with spatial axes of size 1."""
    return _over_space(jnp.mean, _accumulated(x)).astype(x.dtype)


def global_max_pool(x: Num[Array, "n c ..."]) -> Num[Array, "n c ..."]:
    """Returns the largest entry of each channel of (N, C, spatial...), with spatial axes of size 1."""
    return _over_space(jnp.max, x)


def global_lp_pool(x: Float[Array, "n c ..."], p: float) -> Float[Array, "n c ..."]:
    """Returns the p-norm of each channel of (N, C, spatial...), with spatial axes of size 1."""
    return _root(_over_space(jnp.sum, _raised(_accumulated(x), p)), p).astype(x.dtype)


def _in_layout(pool: Callable[[Array], Array], layout: Layout, x: Array) -> Array:
    """Pools with the channels last, as convolutions return and read them."""
    if layout == "channels_last":
        return pool(x)
    return jnp.moveaxis(pool(jnp.moveaxis(x, 1, -1)), -1, 1)


def _combined(x: Array, windows: Sequence[PoolingWindow], combine: Callable[[Array, Array], Array], fill: Any) -> Array:
    """Combines all taps of (N, spatial..., C), one axis after another."""
    for axis, window in enumerate(windows, start=1):
        if window.taps > _MOST_SLICES:
            x = _reduced(x, window, axis, jax.lax.max if combine is _larger else jax.lax.add, fill)
            continue
        first, *others = window.filled(x, axis, fill)
        for other in others:
            first = combine(first, other)
        x = first
    return x


def _reduced(x: Array, window: PoolingWindow, axis: int, combine: Callable[[Array, Array], Array], fill: Any) -> Array:
    """Combines all taps along one axis by XLA's window reduction."""
    ones = [1] * x.ndim
    taps, strides, dilation = (
        [*ones[:axis], n, *ones[axis + 1 :]] for n in (window.taps, window.stride, window.dilation)
    )
    padded = _padded(x, (window,), fill, first=axis)
    reduced = jax.lax.reduce_window(
        padded, np.asarray(fill, x.dtype), combine, taps, strides, "VALID", window_dilation=dilation
    )
    return jax.lax.slice_in_dim(reduced, 0, window.outputs, axis=axis)


def _padded(x: Array, windows: Sequence[PoolingWindow], fill: Any, first: int) -> Array:
    ends = [(0, 0, 0)] * x.ndim
    ends[first : first + len(windows)] = [(w.before, w.after + w.beyond, 0) for w in windows]
    return jax.lax.pad(x, jnp.asarray(fill, x.dtype), ends) if any(low or high for low, high, _ in ends) else x


def _larger(a: Array, b: Array) -> Array:
    """Returns the larger value, the first of equals (so that one of them gets the gradient), or NaN if either is."""
    return jnp.where((b > a) | (b != b), b, a)


def _least(dtype: Any) -> Any:
    return -jnp.inf if jnp.issubdtype(dtype, jnp.floating) else finite_range(dtype)[0]


def _mean(total: Array, windows: Sequence[PoolingWindow], count_padding: bool, first: int) -> Array:
    """Divides the sums of windows, whose spatial axes begin at axis `first`, by the number of entries that count."""
    counts = [_counts(window, count_padding) for window in windows]
    if all(isinstance(count, int) for count in counts):
        return divide(total, jnp.asarray(int(np.prod(counts)), total.dtype))
    grid = np.ones((1,) * first)
    for count, window in zip(counts, windows, strict=True):
        grid = grid[..., None] * (np.full(window.outputs, count) if isinstance(count, int) else count)
    grid = np.maximum(grid, 1).reshape(grid.shape + (1,) * (total.ndim - grid.ndim))
    return divide(total, jnp.asarray(grid, total.dtype))


def _counts(window: PoolingWindow, count_padding: bool) -> Any:
    """Returns the number of taps of each window that count, as one number if it is the same for all."""
    if not window.beyond and (count_padding or not (window.before or window.after)):
        return window.taps
    low, high = (-window.before, window.size + window.after) if count_padding else (0, window.size)
    positions = window.positions()
    return ((positions >= low) & (positions < high)).sum(1)


def _accumulated(x: Array) -> Array:
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def _raised(x: Array, p: float) -> Array:
    return x * x if p == 2 else jnp.abs(x) ** p


def _root(total: Array, p: float) -> Array:
    positive = total > 0  # at 0 the derivative of the root is infinite
    return jnp.where(positive, jnp.where(positive, total, 1) ** (1 / p), 0)


def _over_space(reduce: Callable[..., Array], x: Array) -> Array:
    """Reduces over all spatial axes with the channels last, as convolutions return and read them.

    With the channels first, XLA would convert a network's arrays between the two layouts.
    """
    y = reduce(jnp.moveaxis(x, 1, -1), tuple(range(1, x.ndim - 1)), keepdims=True)
    return jnp.moveaxis(y, -1, 1)
