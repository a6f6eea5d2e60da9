"""Quantisation of floats to integers and back: halves are rounded to even, integers saturate."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from modeldiff_jax.kernels.rounding import finite_range
from modeldiff_jax.models.graph.values import Value, astype, axis_index, divide, saturate, xp
from modeldiff_jax.models.onnx.ops.common import computing_in, element_type
from modeldiff_jax.models.onnx.registration import op


def _aligned(values: Value, x: Value, axis: int, block_size: int) -> Value:
    """Returns a scale or zero point, repeated over its blocks or set on its axis, to broadcast against `x`."""
    if np.size(values) == 1:
        return values.reshape(())
    axis = axis_index(axis, x.ndim)
    if block_size:
        return xp(values).repeat(values, block_size, axis=axis)[tuple(slice(0, n) for n in x.shape)]
    return values.reshape((1,) * axis + (-1,) + (1,) * (x.ndim - axis - 1))


def quantize(x: Value, scale: Value, zero_point: Value, dtype: np.dtype[Any]) -> Value:
    """Returns round(x / scale) + zero_point as `dtype`."""
    m = xp(x, scale, zero_point)
    ratio = divide(x, scale)
    if jnp.issubdtype(dtype, jnp.floating):
        return astype(m.clip(ratio, *map(float, finite_range(dtype))), dtype)
    whole = m.rint(ratio)
    return saturate(whole if zero_point is None else whole + astype(zero_point, whole.dtype), dtype)


@op("QuantizeLinear")
def quantize_linear(
    x: Value,
    scale: Value,
    zero_point: Value = None,
    /,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Value:
    """Returns round(x / scale) + zero_point, per tensor, per axis or per block; uint8 by default."""
    if output_dtype:
        dtype = element_type(output_dtype)
    else:
        dtype = np.dtype(np.uint8) if zero_point is None else np.dtype(zero_point.dtype)
    wide = element_type(precision) if precision else jnp.promote_types(x.dtype, np.float32)

    def quantized() -> Value:
        values = astype(x, wide)
        divisor = _aligned(astype(scale, wide), values, axis, block_size)
        offset = None if zero_point is None else _aligned(zero_point, values, axis, block_size)
        if not saturate and jnp.issubdtype(dtype, jnp.floating):
            return astype(divide(values, divisor), dtype)
        return quantize(values, divisor, offset, dtype)

    return computing_in(wide, (x, scale, zero_point), quantized)


@op("DequantizeLinear")
def dequantize_linear(
    x: Value,
    scale: Value,
    zero_point: Value = None,
    /,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Value:
    """Returns (x - zero_point) * scale, per tensor, per axis or per block, in the scale's type by default."""
    dtype = element_type(output_dtype) if output_dtype else np.dtype(scale.dtype)
    wide = np.float32
    y = astype(x, wide)
    if zero_point is not None:  # in float32: integers of 16 bits and less are exact, and sums of 32 cannot overflow
        y = y - astype(_aligned(zero_point, x, axis, block_size), wide)
    return astype(y * astype(_aligned(scale, x, axis, block_size), wide), dtype)


@op("DynamicQuantizeLinear")
def dynamic_quantize_linear(x: Value, /) -> tuple[Value, Value, Value]:
    """Quantises `x` to uint8 over its range, extended to 0; also returns the scale and the zero point."""
    m = xp(x)
    low, high = m.min(x, initial=0), m.max(x, initial=0)
    scale = divide(high - low, m.float32(255))
    scale = m.where(scale > 0, scale, m.float32(1))
    zero_point = saturate(m.rint(divide(-low, scale)), np.dtype(np.uint8))
    return quantize(x, scale, zero_point, np.dtype(np.uint8)), scale, zero_point
