"""Convolutions of integers, through exact float32: XLA's own integer ones take thirty times as long on CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from modeldiff_jax.models.graph.registry import Value, op, xp
from modeldiff_jax.models.onnx.ops.common import astype
from modeldiff_jax.models.onnx.ops.conv import conv
from modeldiff_jax.models.onnx.ops.quantization import divide, saturate

_EXACT = 2**24 // 255**2
"""Sums of as many products of differences of 8-bit integers are exact in float32."""


def _exact_convolution(x: Value, w: Value, group: int, **geometry: Any) -> Value:
    """The convolution of int32 arrays that hold differences of 8-bit integers, as int32."""
    taps, channels = math.prod(w.shape[2:]), w.shape[1]
    each = _EXACT // taps
    if not each:  # filters of more taps than that: their upper and lower bits, in two smaller products
        high, low = w // 16, w % 16
        each, parts = max(1, 2**24 // (255 * 16) // taps), [(16, high), (1, low)]
    else:
        parts = [(1, w)]
    grouped = x.reshape(x.shape[0], group, channels, *x.shape[2:])
    total: Value = 0
    for start in range(0, channels, each):
        piece = grouped[:, :, start : start + each]
        piece = piece.reshape(x.shape[0], -1, *x.shape[2:])
        for factor, part in parts:
            y = conv(
                jnp.asarray(piece, np.float32),
                jnp.asarray(part[:, start : start + each], np.float32),
                group=group,
                **geometry,
            )
            total = total + factor * y.astype(np.int32)
    return total


def _centred(x: Value, zero_point: Value) -> Value:
    """`x` minus its zero point, which is one number or one for each entry of the first axis."""
    wide = astype(x, np.int32)
    if zero_point is None:
        return wide
    offset = astype(zero_point, np.int32).reshape(-1)
    return wide - offset.reshape((-1,) + (1,) * (x.ndim - 1))


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
    """The convolution of x - x_zero with w - w_zero in int32."""
    return _exact_convolution(
        _centred(x, x_zero),
        _centred(w, w_zero),
        group,
        auto_pad=auto_pad,
        dilations=dilations,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )


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
    """The quantised convolution of quantised tensors; `b` is int32 in the scale of the products."""
    total = conv_integer(
        x,
        w,
        x_zero,
        w_zero,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    columns = (-1,) + (1,) * (x.ndim - 2)
    if b is not None:
        total = total + astype(b, np.int32).reshape(columns)
    ratio = divide(x_scale.reshape(-1) * w_scale.reshape(-1), y_scale.reshape(-1))
    whole = xp(total).rint(astype(total, np.float32) * ratio.reshape(columns)) + astype(y_zero, np.float32).reshape(())
    return saturate(whole, np.dtype(y_zero.dtype))
