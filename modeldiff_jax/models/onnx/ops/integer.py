"""Products of quantised tensors: ONNX's inputs and attributes for `kernels.integer_products`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.integer_products import (
    SHORTEST_PIECE,
    integer_convolution,
    integer_matmul,
    requantize,
)
from modeldiff_jax.limits import check_written_out
from modeldiff_jax.models.graph.values import Value, astype, divide
from modeldiff_jax.models.onnx.ops.conv import conv_windows
from modeldiff_jax.models.onnx.registration import op


def output_scale(a_scale: Value, b_scale: Value, y_scale: Value) -> Value:
    """Returns the factor that converts products of integers to the output's integers."""
    if np.size(y_scale) != 1:
        raise InvalidInputError("The output of a quantised product has one scale", got=f"{np.size(y_scale)}")
    product = astype(a_scale, np.float32) * astype(b_scale, np.float32)
    return divide(product, astype(y_scale, np.float32).reshape(()))


@op("MatMulInteger")
def matmul_integer(a: Value, b: Value, a_zero: Value = None, b_zero: Value = None, /) -> Value:
    """Returns (A - a_zero)(B - b_zero) in int32."""
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
    """Returns the quantised product of quantised matrices."""
    of_rows = a_scale[:, None] if a_scale.ndim == 1 else a_scale
    rows = of_rows if np.size(a_scale) > 1 else a_scale.reshape(())
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
    """Returns the convolution of x - x_zero with w - w_zero, in int32."""
    windows = conv_windows(x, w, auto_pad, dilations, group, kernel_shape, pads, strides)
    check_written_out(math.prod(w.shape[2:]) // SHORTEST_PIECE)
    return integer_convolution(x, x_zero, w, w_zero, **windows, groups=group)


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
    """Returns the quantised convolution of quantised tensors; the filter may have a scale for each output channel."""
    windows = conv_windows(x, w, auto_pad, dilations, group, kernel_shape, pads, strides)
    check_written_out(math.prod(w.shape[2:]) // SHORTEST_PIECE)
    total = integer_convolution(x, x_zero, w, w_zero, **windows, groups=group)

    def on_channels(values: Value) -> Value:
        return values.reshape(-1, *(1,) * (x.ndim - 2)) if np.size(values) > 1 else values.reshape(())

    if b is not None:
        total = total + on_channels(jnp.asarray(b))
    return requantize(total, output_scale(x_scale.reshape(()), on_channels(w_scale), y_scale), y_zero)
