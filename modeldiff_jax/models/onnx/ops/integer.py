"""Matrix products and convolutions of 8-bit integers, exact, in the float32 units every device is fast at.

An integer less its zero point has at most 9 bits, and float32 adds whole numbers exactly, in any order, below 2**24:
that holds for sums of 258 products, and of 514 where one side is int8 around 0. Longer sums are cut into pieces of
that length and added in int32. The pieces cost no more multiplications than the whole. XLA's own integer convolution
on CPU takes 25 to 33 times as long as its float32 one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.convolution import convolve
from modeldiff_jax.models.graph.registry import Value, concrete
from modeldiff_jax.models.onnx.ops.common import HIGHEST, astype, divide
from modeldiff_jax.models.onnx.ops.conv import Windows, conv_windows
from modeldiff_jax.models.onnx.ops.quantization import saturate
from modeldiff_jax.models.onnx.registration import op

_EXACT = 2**24
"""Up to here float32 holds every whole number."""


def largest(x: Value, zero_point: Value) -> int:
    """A bound on |x - zero_point|, by the type of `x` and the zero point where that is known."""
    info = np.iinfo(x.dtype)
    low, high = int(info.min), int(info.max)
    if zero_point is None:
        return max(-low, high)
    if not concrete(zero_point):
        return high - low
    zeros = np.asarray(zero_point).astype(np.int64)
    return max(high - int(zeros.min()), int(zeros.max()) - low) if zeros.size else high - low


def _centred(x: Value, zero_point: Value, align: Callable[[Value], Value]) -> Value:
    """`x - zero_point` in float32; `align` sets a vector of zero points on its axis."""
    wide = astype(jnp.asarray(x), np.float32)
    if zero_point is None:
        return wide
    offset = astype(zero_point, np.float32)
    return wide - (offset.reshape(()) if np.size(offset) == 1 else align(offset))


def _rows(values: Value) -> Value:
    return values[:, None] if values.ndim == 1 else values


def _columns(values: Value) -> Value:
    return values


def _parts(length: int, most: int) -> list[slice]:
    """`length` cut into as few, equally long pieces of at most `most` as there can be."""
    n = -(-length // max(most, 1))
    ends = [length * i // n for i in range(n + 1)] if n else []
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


def _total(pieces: Sequence[Value]) -> Value:
    """Whole numbers in float32, added in int32."""
    first, *others = (astype(piece, np.int32) for piece in pieces)
    for other in others:
        first = first + other
    return first


def integer_matmul(a: Value, a_zero: Value, b: Value, b_zero: Value) -> Value:
    """(a - a_zero) (b - b_zero) in int32; zero points may be those of a's rows and b's columns."""
    most = _EXACT // max(largest(a, a_zero) * largest(b, b_zero), 1)
    left, right = _centred(a, a_zero, _rows), _centred(b, b_zero, _columns)
    if left.shape[-1] != right.shape[max(right.ndim - 2, 0)]:
        raise InvalidInputError("The factors' inner sizes are equal", got=f"{left.shape} and {right.shape}")
    return _total(
        [
            jnp.matmul(left[..., part], right[part] if right.ndim == 1 else right[..., part, :], precision=HIGHEST)
            for part in _parts(left.shape[-1], most)
        ]
        or [jnp.matmul(left, right)]
    )


def integer_convolution(x: Value, x_zero: Value, w: Value, w_zero: Value, windows: Windows, groups: int) -> Value:
    """The convolution of x - x_zero (0 in the padding) with w - w_zero, in int32."""
    most = _EXACT // max(largest(x, x_zero) * largest(w, w_zero), 1)
    wide = _centred(x, x_zero, lambda v: v.reshape(-1, *(1,) * (x.ndim - 2)))
    filters = _centred(w, w_zero, lambda v: v.reshape(-1, *(1,) * (w.ndim - 1)))
    return _total(_pieces(wide, filters, windows, groups, most))


def _pieces(x: Value, w: Value, windows: Windows, groups: int, most: int) -> list[Value]:
    """Convolutions of at most `most` products an output, which add up to the whole one.

    A filter is cut along its channels, and where one channel is too long along its taps.
    """
    products = int(np.prod(w.shape[1:]))
    if products <= most or max(w.shape[1:]) == 1:
        return [convolve(x, w, groups=groups, **windows)]
    axis = 1 if w.shape[1] > 1 else 1 + int(np.argmax(w.shape[1:]))
    return [
        piece
        for part in _parts(w.shape[axis], most * w.shape[axis] // products)
        for piece in _pieces(*_cut(x, w, windows, groups, axis, part), groups, most)
    ]


def _cut(x: Value, w: Value, windows: Windows, groups: int, axis: int, part: slice) -> tuple[Value, Value, Windows]:
    """The part of a filter along one of its axes, and what it sees of the input."""
    some = w[(slice(None),) * axis + (part,)]
    if axis == 1:
        grouped = x.reshape(x.shape[0], groups, -1, *x.shape[2:])[:, :, part]
        return grouped.reshape(x.shape[0], -1, *x.shape[2:]), some, windows
    i, padding = axis - 2, list(windows["padding"])
    (before, after), step = padding[i], windows["dilation"][i]
    padding[i] = (before - part.start * step, after - (w.shape[axis] - part.stop) * step)
    return x, some, Windows(strides=windows["strides"], padding=tuple(padding), dilation=windows["dilation"])


def requantize(total: Value, scale: Value, zero_point: Value) -> Value:
    """round(total * scale) + zero_point in the zero point's type."""
    whole = jnp.rint(astype(total, np.float32) * scale) + astype(zero_point, np.float32).reshape(())
    return saturate(whole, np.dtype(zero_point.dtype))


def output_scale(a_scale: Value, b_scale: Value, y_scale: Value) -> Value:
    """What takes a product of integers to the output's integers."""
    if np.size(y_scale) != 1:
        raise InvalidInputError("The output of a quantised product has one scale", got=f"{np.size(y_scale)}")
    product = astype(a_scale, np.float32) * astype(b_scale, np.float32)
    return divide(product, astype(y_scale, np.float32).reshape(()))


@op("MatMulInteger")
def matmul_integer(a: Value, b: Value, a_zero: Value = None, b_zero: Value = None, /) -> Value:
    """(A - a_zero)(B - b_zero) in int32."""
    return integer_matmul(a, a_zero, b, b_zero)


@op("QLinearMatMul")
def qlinear_matmul(
    a: Value,
    a_scale: Value,
    a_zero: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value,
    y_scale: Value,
    y_zero: Value,
    /,
) -> Value:
    """The quantised product of quantised matrices."""
    rows = _rows(a_scale) if np.size(a_scale) > 1 else a_scale.reshape(())
    columns = b_scale if np.size(b_scale) > 1 else b_scale.reshape(())
    return requantize(integer_matmul(a, a_zero, b, b_zero), output_scale(rows, columns, y_scale), y_zero)


@op("ConvInteger")
def conv_integer(
    x: Value,
    w: Value,
    x_zero: Value = None,
    w_zero: Value = None,
    /,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """The convolution of x - x_zero with w - w_zero, in int32."""
    windows = conv_windows(x, w, auto_pad, dilations, group, kernel_shape, pads, strides)
    return integer_convolution(x, x_zero, w, w_zero, windows, group)


@op("QLinearConv")
def qlinear_conv(
    x: Value,
    x_scale: Value,
    x_zero: Value,
    w: Value,
    w_scale: Value,
    w_zero: Value,
    y_scale: Value,
    y_zero: Value,
    b: Value = None,
    /,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """The quantised convolution of quantised tensors; the filter may have a scale for each output."""
    windows = conv_windows(x, w, auto_pad, dilations, group, kernel_shape, pads, strides)
    total = integer_convolution(x, x_zero, w, w_zero, windows, group)

    def on_channels(values: Value) -> Value:
        return values.reshape(-1, *(1,) * (x.ndim - 2)) if np.size(values) > 1 else values.reshape(())

    if b is not None:
        total = total + on_channels(jnp.asarray(b))
    return requantize(total, output_scale(x_scale.reshape(()), on_channels(w_scale), y_scale), y_zero)
