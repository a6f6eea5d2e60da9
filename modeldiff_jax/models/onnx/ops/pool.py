"""Pooling. Windows are shifted slices, one axis after another.

XLA's own window reductions have a slow derivative on CPU: for a 3 x 3 maximum of stride 2 over 64 channels of 112 x 112
the gradient takes about a half of their time this way, with stride 1 a seventh, and the values themselves no longer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.graph.registry import Static, Value
from modeldiff_jax.models.onnx.ops.common import astype, divide, finite_range, in_float32, sizes
from modeldiff_jax.models.onnx.registration import op


@dataclass(frozen=True, slots=True)
class Window:
    """How one axis is cut into windows: `taps` places `dilation` apart, every `stride`, after padding."""

    taps: int
    stride: int
    dilation: int
    before: int
    after: int
    """Padding the model asks for; ceil mode may need `beyond` more."""
    beyond: int
    size: int
    outputs: int

    def slices(self, x: Value, axis: int) -> list[Value]:
        """The padded tensor at each tap of all windows."""
        reach = self.stride * (self.outputs - 1) + 1
        return [
            jax.lax.slice_in_dim(x, i * self.dilation, i * self.dilation + reach, self.stride, axis)
            for i in range(self.taps)
        ]

    def filled(self, x: Value, axis: int, fill: Any) -> list[Value]:
        """The unpadded tensor at each tap of all windows, `fill` where a tap falls into the padding.

        Where windows stride, no slice reads all of a padded copy: to fill each slice takes a quarter of the time.
        """
        if self.stride == 1 or not isinstance(self.size, int):
            return self.slices(_padded(x, (self,), fill, first=axis), axis)
        taps = []
        for shift in range(-self.before, (self.taps - 1) * self.dilation - self.before + 1, self.dilation):
            first = min(max(-(shift // self.stride), 0), self.outputs)
            last = min(max((self.size - 1 - shift) // self.stride + 1, first), self.outputs)
            places = np.arange(first, last) * self.stride + shift
            low, high = (places[0], places[-1] + 1) if places.size else (0, 0)
            inside = jax.lax.slice_in_dim(x, int(low), int(high), self.stride, axis)
            ends = [(0, 0, 0)] * x.ndim
            ends[axis] = (first, self.outputs - last, 0)
            taps.append(jax.lax.pad(inside, jnp.asarray(fill, x.dtype), ends))
        return taps

    def places(self) -> np.ndarray:
        """Where each tap of each window falls in the unpadded axis, shape (outputs, taps)."""
        return np.arange(self.outputs)[:, None] * self.stride + np.arange(self.taps) * self.dilation - self.before


def windows(
    x: Value,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
    ceil_mode: int,
) -> tuple[Window, ...]:
    """The windows of each spatial axis."""
    n = x.ndim - 2
    strides, dilations, pads = strides or (1,) * n, dilations or (1,) * n, pads or (0,) * (2 * n)
    if not (len(kernel_shape) == len(strides) == len(dilations) == n and len(pads) == 2 * n):
        raise InvalidInputError(
            "A pooling window has one size, stride and dilation an axis", got=f"{kernel_shape}, {strides}, {dilations}"
        )
    if min(*kernel_shape, *strides, *dilations) < 1 or min(pads) < 0:
        raise InvalidInputError(
            "Window sizes, strides and dilations are positive, pads not negative",
            got=f"{kernel_shape}, {strides}, {dilations}, {pads}",
        )
    return tuple(
        _window(x.shape[2 + i], kernel_shape[i], strides[i], dilations[i], pads[i], pads[n + i], auto_pad, ceil_mode)
        for i in range(n)
    )


def _window(
    size: Any, taps: int, stride: int, dilation: int, before: int, after: int, auto_pad: str, ceil_mode: int
) -> Window:
    reach = (taps - 1) * dilation + 1
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        outputs = -(-size // stride)
        total = max((outputs - 1) * stride + reach - size, 0)
        before = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
        after = total - before
    elif auto_pad == "VALID":
        before = after = 0
    elif auto_pad not in ("NOTSET", ""):
        raise InvalidInputError("auto_pad is NOTSET, VALID, SAME_UPPER or SAME_LOWER", got=auto_pad)
    room = size + before + after - reach
    outputs = room // stride + 1
    ceil = ceil_mode == 1  # as onnx's own shape inference has it
    if ceil and auto_pad in ("NOTSET", ""):
        outputs = -(-room // stride) + 1
        if (outputs - 1) * stride >= size + before:  # a window must not begin in the padding behind
            outputs -= 1
    elif ceil and auto_pad == "VALID":
        outputs = -(-(size - reach + 1) // stride)
    if isinstance(room, int) and outputs < 1:
        raise InvalidInputError("A pooling window must fit its padded input", got=f"{reach} over {size}")
    beyond = max((outputs - 1) * stride + reach - (size + before + after), 0) if ceil else 0
    return Window(taps, stride, dilation, before, after, beyond, size, outputs)


def _padded(x: Value, over: Sequence[Window], fill: Any, first: int) -> Value:
    ends = [(0, 0, 0)] * x.ndim
    ends[first : first + len(over)] = [(w.before, w.after + w.beyond, 0) for w in over]
    return jax.lax.pad(x, jnp.asarray(fill, x.dtype), ends) if any(low or high for low, high, _ in ends) else x


def _fold(x: Value, over: Sequence[Window], combine: Callable[[Value, Value], Value], fill: Any) -> Value:
    """Combines all taps, one axis after another; channels last, as convolutions leave and take them."""
    x = jnp.moveaxis(x, 1, -1)
    for axis, window in enumerate(over, start=1):
        first, *others = window.filled(x, axis, fill)
        for other in others:
            first = combine(first, other)
        x = first
    return jnp.moveaxis(x, -1, 1)


def _larger(a: Value, b: Value) -> Value:
    """The larger, the first of equals (so that a gradient goes to one place), NaN if either is."""
    return jnp.where((b > a) | (b != b), b, a)


def _least(dtype: Any) -> Any:
    return -jnp.inf if jnp.issubdtype(dtype, jnp.floating) else finite_range(dtype)[0]


@op("MaxPool")
def max_pool(
    x: Value,
    /,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    storage_order: int = 0,
    n_outputs: int = 1,
) -> Value:
    """The largest of each window, and on demand its index in the flat tensor."""
    x = jnp.asarray(x)
    over = windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    largest = _fold(x, over, _larger, _least(x.dtype))
    return (largest, _indices_of_max(x, largest, over, storage_order)) if n_outputs > 1 else largest


def _indices_of_max(x: Value, largest: Value, over: Sequence[Window], storage_order: int) -> Value:
    """The place of each window's largest entry (or NaN) in the flat tensor, the first of equals; -1 if all is padding.

    Padding is never that place, although an entry may be as low as what padding is filled with.
    """
    taps = _padded(x, over, _least(x.dtype), first=2)[..., None]
    for axis, window in enumerate(over, start=2):  # (n, c, outputs..., taps of all axes, the last axis fastest)
        stacked = jnp.stack(window.slices(taps, axis), -1)
        taps = stacked.reshape(*stacked.shape[:-2], -1)
    spatial = [w.size for w in over]
    weights = np.cumprod([1, *spatial[:-1]]) if storage_order else np.cumprod([1, *spatial[:0:-1]])[::-1]
    # of each tap of each window: (outputs..., taps)
    flat: np.ndarray = np.zeros((1,), np.int64)
    inside: np.ndarray = np.ones((1,), bool)
    for i, (window, weight) in enumerate(zip(over, weights, strict=True)):
        places = window.places().reshape((1,) * i + (window.outputs,) + (1,) * (len(over) - 1 - i) + (1, -1))
        flat = flat[..., :, None] + places * weight
        inside = inside[..., :, None] & (places >= 0) & (places < window.size)
        flat, inside = flat.reshape(*flat.shape[:-2], -1), inside.reshape(*inside.shape[:-2], -1)
    is_largest = jnp.asarray(inside) & ((taps == largest[..., None]) | (taps != taps))
    tap = jnp.argmax(is_largest, -1)
    found = jnp.take_along_axis(jnp.asarray(flat)[None, None], tap[..., None], -1)[..., 0]
    start = jnp.arange(x.shape[0] * x.shape[1]).reshape((x.shape[0], x.shape[1]) + (1,) * len(over))
    index = start * int(np.prod(spatial)) + found
    return astype(index if inside.any(-1).all() else jnp.where(inside.any(-1), index, -1), np.int64)


@op("AveragePool")
@in_float32
def average_pool(
    x: Value,
    /,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> Value:
    """The mean of each window; padding counts if `count_include_pad`, what ceil mode reaches beyond it never does."""
    x = jnp.asarray(x)
    over = windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    return _mean(_fold(x, over, jnp.add, 0), over, count_include_pad)


def average_pool_by_rows(x: Value, over: Sequence[Window], count_include_pad: int) -> Value:
    """The mean of each window, added up row by row: in the order of onnxruntime's quantised kernel."""
    taps = [_padded(x, over, 0, first=2)]
    for axis, window in enumerate(over, start=2):
        taps = [piece for tap in taps for piece in window.slices(tap, axis)]
    return _mean(functools.reduce(jnp.add, taps), over, count_include_pad)


def _mean(total: Value, over: Sequence[Window], count_include_pad: int) -> Value:
    counts = [_counts(window, count_include_pad) for window in over]
    if all(isinstance(count, int) for count in counts):
        return divide(total, jnp.asarray(int(np.prod(counts)), total.dtype))
    grid = np.ones(())
    for count, window in zip(counts, over, strict=True):
        grid = grid[..., None] * (np.full(window.outputs, count) if isinstance(count, int) else count)
    return divide(total, jnp.asarray(np.maximum(grid, 1), total.dtype))


def _counts(window: Window, count_include_pad: int) -> Any:
    """How many taps of each window count: one number where it is the same for all."""
    if not window.beyond and (count_include_pad or not (window.before or window.after)):
        return window.taps
    low, high = (-window.before, window.size + window.after) if count_include_pad else (0, window.size)
    places = window.places()
    return ((places >= low) & (places < high)).sum(1)


def _lp_pool(
    x: Value,
    p: float,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
    ceil_mode: int,
) -> Value:
    x = jnp.asarray(x)
    if p <= 0:
        raise InvalidInputError("The norm of a pool has a positive p", got=f"{p}")
    over = windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    return _root(_fold(_raised(x, p), over, jnp.add, 0), p)


def _raised(x: Value, p: float) -> Value:
    return x * x if p == 2 else jnp.abs(x) ** p


def _root(total: Value, p: float) -> Value:
    positive = total > 0  # at 0 the root's slope is infinite
    return jnp.where(positive, jnp.where(positive, total, 1) ** (1 / p), 0).astype(total.dtype)


@op("LpPool")
@in_float32
def lp_pool_1(
    x: Value,
    /,
    *,
    kernel_shape: Sequence[int],
    p: float = 2.0,
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
) -> Value:
    """The p-norm of each window."""
    return _lp_pool(x, p, kernel_shape, strides, None, pads, auto_pad, 0)


@op("LpPool", since=2)
@in_float32
def lp_pool(
    x: Value,
    /,
    *,
    kernel_shape: Sequence[int],
    p: int = 2,
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> Value:
    """The p-norm of each window."""
    return _lp_pool(x, p, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)


def _over_places(reduce: Callable[..., Value], x: Value) -> Value:
    """A reduction over all places, channels last, as convolutions leave and take them.

    Over the last axes it would make XLA copy a network's tensors to and fro between the two orders.
    """
    y = reduce(jnp.moveaxis(x, 1, -1), tuple(range(1, x.ndim - 1)), keepdims=True)
    return jnp.moveaxis(y, -1, 1)


@op("GlobalAveragePool")
@in_float32
def global_average_pool(x: Value, /) -> Value:
    """The mean of each channel."""
    return _over_places(jnp.mean, x)


@op("GlobalMaxPool")
def global_max_pool(x: Value, /) -> Value:
    """The largest of each channel."""
    return _over_places(jnp.max, x)


@op("GlobalLpPool")
@in_float32
def global_lp_pool(x: Value, /, *, p: int = 2) -> Value:
    """The p-norm of each channel."""
    return _root(_over_places(jnp.sum, _raised(jnp.asarray(x), p)), p)


@op("MaxUnpool")
def max_unpool(
    x: Value,
    indices: Value,
    output_shape: Static = None,
    /,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
) -> Value:
    """Values put back at the indices MaxPool gave, zeros elsewhere."""
    n = x.ndim - 2
    strides, pads = strides or (1,) * n, pads or (0,) * (2 * n)
    natural = x.shape[:2] + tuple(
        (x.shape[2 + i] - 1) * strides[i] + kernel_shape[i] - pads[i] - pads[n + i] for i in range(n)
    )
    total = int(np.prod(natural))
    places = jnp.ravel(jnp.where(indices < 0, total, indices))  # a window of padding alone has no place
    small = jnp.zeros(total, x.dtype).at[places].set(jnp.ravel(x), mode="drop").reshape(natural)
    if output_shape is None:
        return small
    wanted = sizes(output_shape)
    return jnp.zeros(wanted, x.dtype).at[tuple(slice(0, d) for d in natural)].set(small)
