"""Conventions of ONNX that many operators share: element types by number, and the broadcasting of opsets 1 to 6."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from modeldiff_jax.errors import UnsupportedModelError
from modeldiff_jax.models.graph.values import Value, axis_index, xp
from modeldiff_jax.models.onnx.registration import op
from modeldiff_jax.runtime import x64

MICROSOFT = "com.microsoft"
"""The domain of operators that only onnxruntime defines."""

_DTYPES = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    4: np.uint16,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    8: np.object_,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
    12: np.uint32,
    13: np.uint64,
    14: np.complex64,
    15: np.complex128,
    16: ml_dtypes.bfloat16,
    17: ml_dtypes.float8_e4m3fn,
    18: ml_dtypes.float8_e4m3fnuz,
    19: ml_dtypes.float8_e5m2,
    20: ml_dtypes.float8_e5m2fnuz,
    21: ml_dtypes.uint4,
    22: ml_dtypes.int4,
    23: ml_dtypes.float4_e2m1fn,
    24: ml_dtypes.float8_e8m0fnu,
    25: ml_dtypes.uint2,
    26: ml_dtypes.int2,
}


def element_type(number: int) -> np.dtype[Any]:
    """Returns the numpy type of an ONNX `TensorProto.DataType` number."""
    if number not in _DTYPES:
        raise UnsupportedModelError("An element type must be one ONNX defines", got=f"type number {number}")
    return np.dtype(_DTYPES[number])


def computing_in(dtype: Any, values: Value, function: Callable[[], Value]) -> Value:
    """Calls a function that computes with `values` in a type that an attribute chose, 64-bit types included."""
    return x64.in_types_of((np.empty(0, dtype), values), function)


def old_broadcast(b: Value, rank: int, axis: int | None, broadcast: int) -> Value:
    """Aligns the axes of `b` with those of a tensor of `rank` axes from `axis` on, as in opsets 1 to 6."""
    if not broadcast or axis is None:
        return b
    start = axis_index(axis, rank)
    return xp(b).reshape(b, b.shape + (1,) * (rank - start - b.ndim))


def register_binary(name: str, function: Callable[[Value, Value], Value]) -> None:
    """Registers a broadcasting operator of two inputs, in its forms until opset 6 and since opset 7."""

    def until_6(
        a: Value,
        b: Value,
        /,
        *,
        axis: int | None = None,
        broadcast: int = 0,
        consumed_inputs: Sequence[int] | None = None,
    ) -> Value:
        return function(a, old_broadcast(b, a.ndim, axis, broadcast))

    def since_7(a: Value, b: Value, /) -> Value:
        return function(a, b)

    op(name)(until_6)
    op(name, since=7)(since_7)


def register_unary(name: str, function: Callable[[Value], Value]) -> None:
    """Registers an operator of one input, in its forms until opset 5 and since opset 6."""

    def until_5(x: Value, /, *, consumed_inputs: Sequence[int] | None = None) -> Value:
        return function(x)

    def since_6(x: Value, /) -> Value:
        return function(x)

    op(name)(until_5)
    op(name, since=6)(since_6)
