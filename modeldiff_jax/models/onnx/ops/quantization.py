"""Integers for floats and back: round half to even, saturate."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.graph.registry import Value, concrete, op, xp
from modeldiff_jax.models.onnx.ops.common import HIGHEST, astype, axis_index, element_type, finite_range


def _aligned(values: Value, x: Value, axis: int, block_size: int) -> Value:
    """A scale or zero point, repeated over its blocks or set on its axis, to broadcast against `x`."""
    if np.size(values) == 1:
        return values.reshape(())
    at = axis_index(axis, x.ndim)
    if block_size:
        return xp(values).repeat(values, block_size, axis=at)[tuple(slice(0, n) for n in x.shape)]
    return values.reshape((1,) * at + (-1,) + (1,) * (x.ndim - at - 1))


def divide(x: Value, scale: Value) -> Value:
    """`x / scale`, correctly rounded.

    XLA turns a division by a broadcast scalar into a product with its reciprocal, which moves exact ties of the
    rounding that follows to the other side; behind a barrier it cannot see that all divisors are one number.
    """
    if concrete(x, scale):
        return np.divide(x, scale)
    return x / jax.lax.optimization_barrier(jnp.broadcast_to(scale, x.shape))


def saturate(x: Value, dtype: np.dtype[Any]) -> Value:
    """Whole numbers in floats as integers of `dtype`, those out of its range at its ends."""
    return astype(xp(x).clip(x, *map(float, finite_range(dtype))), dtype)


def quantize(x: Value, scale: Value, zero_point: Value, dtype: np.dtype[Any]) -> Value:
    """round(x / scale) + zero_point as `dtype`."""
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
    """round(x / scale) + zero_point, per tensor, per axis or per block; uint8 by default."""
    if output_dtype:
        dtype = element_type(output_dtype)
    else:
        dtype = np.dtype(np.uint8) if zero_point is None else np.dtype(zero_point.dtype)
    wide = jnp.promote_types(x.dtype, np.float32)
    if precision:
        wide = element_type(precision)
    x = astype(x, wide)
    over = _aligned(astype(scale, wide), x, axis, block_size)
    offset = None if zero_point is None else _aligned(zero_point, x, axis, block_size)
    if not saturate and jnp.issubdtype(dtype, jnp.floating):
        return astype(divide(x, over), dtype)
    return quantize(x, over, offset, dtype)


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
    """(x - zero_point) * scale, per tensor, per axis or per block, in the scale's type by default."""
    dtype = element_type(output_dtype) if output_dtype else np.dtype(scale.dtype)
    wide = np.float32
    y = astype(x, wide)
    if zero_point is not None:  # in float32: integers of 16 bits and less are exact, and sums of 32 cannot overflow
        y = y - astype(_aligned(zero_point, x, axis, block_size), wide)
    return astype(y * astype(_aligned(scale, x, axis, block_size), wide), dtype)


@op("DynamicQuantizeLinear")
def dynamic_quantize_linear(x: Value, /) -> tuple[Value, Value, Value]:
    """`x` as uint8 over its own range (which includes 0), with the scale and zero point that fit it."""
    m = xp(x)
    low, high = m.minimum(m.min(x), m.float32(0)), m.maximum(m.max(x), m.float32(0))
    scale = divide(high - low, m.float32(255))
    scale = m.where(scale > 0, scale, m.float32(1))
    zero_point = saturate(m.rint(divide(-low, scale)), np.dtype(np.uint8))
    return quantize(x, scale, zero_point, np.dtype(np.uint8)), scale, zero_point


def exact_product(a: Value, b: Value) -> Value:
    """Matrix product of int32 arrays that hold differences of 8-bit integers (9 bits), as int32.

    Sums of up to 256 such products (below 2**24) are exact in float32, whose matrix products are fast everywhere.
    """
    if concrete(a, b):
        return np.matmul(a, b)
    length = a.shape[-1]
    if not isinstance(length, int) or length > 4096:
        return jnp.matmul(a, b, preferred_element_type=jnp.int32)
    total: Value = 0
    for start in range(0, length, 256):
        part = slice(start, start + 256)
        right = b[part] if b.ndim == 1 else b[..., part, :]
        product = jnp.matmul(a[..., part].astype(jnp.float32), right.astype(jnp.float32), precision=HIGHEST)
        total = total + product.astype(jnp.int32)
    return total


def _centred(x: Value, zero_point: Value, row_axis: int) -> Value:
    """`x` minus its zero point in int32; a vector of these belongs to the rows (or columns)."""
    wide = astype(x, np.int32)
    if zero_point is None:
        return wide
    offset = astype(zero_point, np.int32)
    if offset.ndim == 1 and offset.shape[0] > 1 and row_axis == -2:
        offset = offset[:, None]
    return wide - (offset.reshape(()) if np.size(offset) == 1 else offset)


@op("MatMulInteger")
def matmul_integer(a: Value, b: Value, a_zero: Value = None, b_zero: Value = None, /) -> Value:
    """(A - a_zero)(B - b_zero) in int32."""
    return exact_product(_centred(a, a_zero, -2), _centred(b, b_zero, -1))


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
    if y_scale.size != 1:
        raise InvalidInputError("QLinearMatMul's output has one scale", got=f"{y_scale.size}")
    product = astype(exact_product(_centred(a, a_zero, -2), _centred(b, b_zero, -1)), np.float32)
    rows = a_scale[:, None] if a_scale.ndim == 1 and a_scale.size > 1 else a_scale
    ratio = divide(astype(rows, np.float32) * astype(b_scale, np.float32), astype(y_scale, np.float32).reshape(()))
    whole = xp(product, ratio).rint(product * ratio) + astype(y_zero, np.float32).reshape(())
    return saturate(whole, np.dtype(y_zero.dtype))
