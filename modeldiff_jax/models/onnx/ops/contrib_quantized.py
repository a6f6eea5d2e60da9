"""Quantised operators of `com.microsoft`, as onnxruntime's quantiser writes them, with one scale for each tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.integer_products import integer_matmul, requantize
from modeldiff_jax.kernels.pooling import average_pool_in_row_order
from modeldiff_jax.kernels.rounding import multiply_add, rounded
from modeldiff_jax.models.graph.values import Value, astype, axis_index, divide, saturate
from modeldiff_jax.models.onnx.ops import integer, pool, quantization
from modeldiff_jax.models.onnx.ops.activation import leaky_relu
from modeldiff_jax.models.onnx.ops.common import MICROSOFT
from modeldiff_jax.models.onnx.ops.pool import pooling_windows
from modeldiff_jax.models.onnx.ops.quantization import quantize
from modeldiff_jax.models.onnx.registration import op


def _scalar(value: Value) -> Value:
    """Returns a tensor's scale or zero point as a float32 number, 0 for an omitted zero point."""
    if value is None:
        return np.float32(0)
    if np.size(value) != 1:
        raise InvalidInputError("A quantised tensor has one scale and zero point", got=f"{np.size(value)}")
    return astype(value, np.float32).reshape(())


def _floats(x: Value, scale: Value, zero_point: Value) -> Value:
    return (astype(x, np.float32) - _scalar(zero_point)) * _scalar(scale)


def _integers(y: Value, scale: Value, zero_point: Value, dtype: Any) -> Value:
    return quantize(y, _scalar(scale), _scalar(zero_point), np.dtype(dtype))


@op("QLinearAdd", domain=MICROSOFT)
def qlinear_add(
    a: Value,
    a_scale: Value,
    a_zero: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value,
    c_scale: Value,
    c_zero: Value = None,
    /,
) -> Value:
    """Returns the quantised sum, rounded where onnxruntime's kernel rounds."""
    to_a, to_b = (divide(_scalar(scale), _scalar(c_scale)) for scale in (a_scale, b_scale))
    fixed = _scalar(c_zero) - (rounded(to_a * _scalar(a_zero)) + rounded(to_b * _scalar(b_zero)))
    total = multiply_add(fixed, jnp.asarray(a), jnp.asarray(to_a, np.float32))
    total = multiply_add(total, jnp.asarray(b), jnp.asarray(to_b, np.float32))
    return saturate(jnp.rint(total), np.dtype(a.dtype))


@op("QLinearMul", domain=MICROSOFT)
def qlinear_mul(
    a: Value,
    a_scale: Value,
    a_zero: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value,
    c_scale: Value,
    c_zero: Value = None,
    /,
) -> Value:
    """Returns the quantised elementwise product."""
    product = (astype(a, np.float32) - _scalar(a_zero)) * (astype(b, np.float32) - _scalar(b_zero))
    ratio = divide(_scalar(a_scale) * _scalar(b_scale), _scalar(c_scale))
    return saturate(jnp.rint(rounded(product * ratio) + _scalar(c_zero)), np.dtype(a.dtype))


def _register_elementwise(name: str, function: Callable[[Value], Value]) -> None:
    def elementwise(x: Value, x_scale: Value, x_zero: Value, y_scale: Value, y_zero: Value = None, /) -> Value:
        return _integers(function(_floats(x, x_scale, x_zero)), y_scale, y_zero, x.dtype)

    op(name, domain=MICROSOFT)(elementwise)


_register_elementwise("QLinearSigmoid", jax.nn.sigmoid)


@op("QLinearLeakyRelu", domain=MICROSOFT)
def qlinear_leaky_relu(
    x: Value,
    x_scale: Value,
    x_zero: Value,
    y_scale: Value,
    y_zero: Value = None,
    /,
    *,
    alpha: float = float(np.float32(0.01)),
) -> Value:
    """Returns x where it is not negative, alpha * x elsewhere."""
    return _integers(leaky_relu(_floats(x, x_scale, x_zero), alpha), y_scale, y_zero, x.dtype)


@op("QLinearSoftmax", domain=MICROSOFT)
def qlinear_softmax(
    x: Value, x_scale: Value, x_zero: Value, y_scale: Value, y_zero: Value, /, *, opset: int, axis: int = -1
) -> Value:
    """Returns the quantised softmax of the dequantised `x`; before opset 13 over all axes from `axis` on.

    As in onnxruntime's kernel, 1 is a whole number of quantisation steps whatever the scale, and halves round up.
    """
    first = axis_index(axis, x.ndim)
    over = (first,) if opset >= 13 else tuple(range(first, x.ndim))
    steps = jnp.floor(divide(np.float32(1), _scalar(y_scale)))
    shares = jax.nn.softmax(_floats(x, x_scale, None), over)
    return saturate(jnp.floor(rounded(shares * steps) + np.float32(0.5)) + _scalar(y_zero), np.dtype(x.dtype))


@op("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(y_scale: Value, y_zero: Value, /, *parts: Value, axis: int) -> Value:
    """Concatenates tensors, each followed by its scale and zero point, requantised to the output's scale."""
    if len(parts) % 3 or not parts:
        raise InvalidInputError("Each tensor comes with its scale and zero point", got=f"{len(parts)} inputs")
    tensors = [
        _integers(_floats(x, scale, zero), y_scale, y_zero, y_zero.dtype)
        for x, scale, zero in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    ]
    return jnp.concatenate(tensors, axis_index(axis, tensors[0].ndim))


@op("QLinearWhere", domain=MICROSOFT)
def qlinear_where(
    condition: Value,
    x: Value,
    x_scale: Value,
    x_zero: Value,
    y: Value,
    y_scale: Value,
    y_zero: Value,
    z_scale: Value,
    z_zero: Value,
    /,
) -> Value:
    """Returns elements of x where the condition holds, of y elsewhere."""
    first = _integers(_floats(x, x_scale, x_zero), z_scale, z_zero, x.dtype)
    return jnp.where(condition, first, _integers(_floats(y, y_scale, y_zero), z_scale, z_zero, x.dtype))


def _channels_first(x: Value, channels_last: int) -> Value:
    return jnp.moveaxis(x, -1, 1) if channels_last else x


def _channels_back(y: Value, channels_last: int) -> Value:
    return jnp.moveaxis(y, 1, -1) if channels_last else y


@op("QLinearAveragePool", domain=MICROSOFT)
def qlinear_average_pool(
    x: Value,
    x_scale: Value,
    x_zero: Value,
    y_scale: Value,
    y_zero: Value = None,
    /,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    channels_last: int = 0,
    count_include_pad: int = 0,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """Returns the quantised mean of each window of the dequantised `x`."""
    floats = jnp.asarray(_channels_first(_floats(x, x_scale, x_zero), channels_last))
    windows = pooling_windows(floats, kernel_shape, strides, None, pads, auto_pad, ceil_mode)
    y = average_pool_in_row_order(floats, windows, count_padding=bool(count_include_pad))
    # onnxruntime rounds after adding the zero point here, which decides ties
    whole = jnp.rint(divide(y, _scalar(y_scale)) + _scalar(y_zero))
    return _channels_back(saturate(whole, np.dtype(x.dtype)), channels_last)


def _mean(
    x: Value, x_scale: Value, x_zero: Value, y_scale: Value, y_zero: Value, axes: tuple[int, ...], keepdims: bool
) -> Value:
    """Returns the quantised mean; the sum is exact."""
    count = int(np.prod([x.shape[a] for a in axes]))
    total = astype(jnp.asarray(x), np.int32).sum(axes, keepdims=keepdims)
    total = total - count * astype(_scalar(x_zero), np.int32)
    zero_point: Value = np.zeros((), x.dtype) if y_zero is None else y_zero
    return requantize(total, divide(_scalar(x_scale), _scalar(y_scale) * np.float32(count)), zero_point)


@op("QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_global_average_pool(
    x: Value, x_scale: Value, x_zero: Value, y_scale: Value, y_zero: Value, /, *, channels_last: int = 0
) -> Value:
    """Returns the quantised mean of each channel."""
    first = int(not channels_last) + 1
    axes = tuple(range(first, first + x.ndim - 2))
    return _mean(x, x_scale, x_zero, y_scale, y_zero, axes, True)


@op("QLinearReduceMean", domain=MICROSOFT)
def qlinear_reduce_mean(
    x: Value,
    x_scale: Value,
    x_zero: Value,
    y_scale: Value,
    y_zero: Value = None,
    /,
    *,
    axes: Sequence[int],
    keepdims: int,
) -> Value:
    """Returns the quantised mean over axes."""
    over = tuple(axis_index(axis, x.ndim) for axis in axes)
    return _mean(x, x_scale, x_zero, y_scale, y_zero, over, keepdims == 1)


@op("QGemm", domain=MICROSOFT)
def qgemm(
    a: Value,
    a_scale: Value,
    a_zero: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value,
    c: Value = None,
    y_scale: Value = None,
    y_zero: Value = None,
    /,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Value:
    """Returns alpha A B + C, where C has the scale alpha a_scale b_scale; float32 if the output has no scale."""
    total = integer_matmul(a.T if transA else a, a_zero, b.T if transB else b, b_zero)
    if c is not None:
        total = total + astype(c, np.int32)
    columns = b_scale if np.size(b_scale) > 1 else b_scale.reshape(())
    scale = np.float32(alpha) * _scalar(a_scale) * columns
    if y_scale is None:
        return astype(total, np.float32) * scale
    return requantize(total, divide(scale, _scalar(y_scale)), y_zero)


@op("QLinearConv", domain=MICROSOFT)
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
    channels_last: int = 0,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """Returns the quantised convolution of channels first or last; the filter's layout is the same for both."""
    y = integer.qlinear_conv(
        *(_channels_first(x, channels_last), x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, b),
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return _channels_back(y, channels_last)


@op("NhwcMaxPool", domain=MICROSOFT)
def nhwc_max_pool(
    x: Value,
    /,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """Returns the largest entry of each window, channels last."""
    y = pool.max_pool(
        jnp.moveaxis(x, -1, 1),
        kernel_shape=kernel_shape,
        strides=strides,
        dilations=dilations,
        pads=pads,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
    )
    return jnp.moveaxis(y, 1, -1)


@op("QuantizeLinear", domain=MICROSOFT)
def quantize_linear(x: Value, scale: Value, zero_point: Value = None, /, *, axis: int | None = None) -> Value:
    """Returns round(x / scale) + zero_point, also in 16 bits."""
    return quantization.quantize_linear(x, scale, zero_point, axis=1 if axis is None else axis)


@op("DequantizeLinear", domain=MICROSOFT)
def dequantize_linear(x: Value, scale: Value, zero_point: Value = None, /, *, axis: int | None = None) -> Value:
    """Returns (x - zero_point) * scale, also of 16 bits."""
    return quantization.dequantize_linear(x, scale, zero_point, axis=1 if axis is None else axis)


@op("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(
    a: Value,
    b: Value,
    a_scale: Value,
    b_scale: Value,
    a_zero: Value = None,
    b_zero: Value = None,
    bias: Value = None,
    /,
) -> Value:
    """Returns the product of quantised matrices as floats; B may have a scale for each column."""
    columns = b_scale if np.size(b_scale) > 1 else b_scale.reshape(())
    y = astype(integer_matmul(a, a_zero, b, b_zero), np.float32) * (_scalar(a_scale) * columns)
    return y if bias is None else rounded(y) + bias


@op("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(a: Value, b: Value, b_scale: Value, b_zero: Value = None, bias: Value = None, /) -> Value:
    """Returns the product of A, dynamically quantised, with a quantised matrix."""
    whole, a_scale, a_zero = quantization.dynamic_quantize_linear(a)
    return matmul_integer_to_float(whole, b, a_scale, b_scale, a_zero, b_zero, bias)
