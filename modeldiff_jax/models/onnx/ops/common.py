"""What operators of several sections share: element types, sizes, axes and the broadcasting of opsets 1 to 6."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from modeldiff_jax.errors import InvalidInputError, UnsupportedModelError
from modeldiff_jax.models.graph.registry import Value, concrete, xp
from modeldiff_jax.models.graph.sizes import is_sizes
from modeldiff_jax.models.onnx.registration import op

F = TypeVar("F", bound=Callable[..., Any])

MICROSOFT = "com.microsoft"
"""The domain of onnxruntime's own operators."""

HIGHEST = jax.lax.Precision.HIGHEST
"""Products of float32 are computed in float32 on every device, as the model's own runtime does."""

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
    """The numpy type of an ONNX `TensorProto.DataType` number."""
    if number not in _DTYPES:
        raise UnsupportedModelError("An element type must be one ONNX defines", got=f"type number {number}")
    return np.dtype(_DTYPES[number])


def astype(x: Value, dtype: Any) -> Value:
    """`x` in `dtype`; traced values get the type JAX keeps it in (64-bit ones are 32-bit unless x64 is on)."""
    if concrete(x):
        return np.asarray(x).astype(dtype)
    return x.astype(jax.dtypes.canonicalize_dtype(dtype))


def is_narrow(x: Value) -> bool:
    """Whether `x` holds floats of fewer than 32 bits, such as float16 and bfloat16."""
    dtype = getattr(x, "dtype", None)
    return dtype is not None and dtype.itemsize < 4 and bool(jnp.issubdtype(dtype, jnp.floating))


def widened(x: Value) -> Value:
    """`x` in float32 where it holds narrower floats, else as it is."""
    return astype(x, np.float32) if is_narrow(x) else x


def in_float32(function: F) -> F:
    """Evaluates an operator of narrower floats in float32, and rounds its results once.

    Sums, squares and products of float16 and bfloat16 overflow, or lose their last bits, where the result itself fits.
    onnxruntime likewise puts casts to float32 around the operators it has no kernels of 16 bits for.

    Args:
      function: an operator whose float results all have the type of its first float input.
    """

    @wraps(function)
    def evaluated(*inputs: Value, **attributes: Any) -> Any:
        if not any(map(is_narrow, inputs)):
            return function(*inputs, **attributes)
        dtypes = (getattr(x, "dtype", None) for x in inputs)
        dtype = next(dtype for dtype in dtypes if dtype is not None and jnp.issubdtype(dtype, jnp.floating))
        results = function(*map(widened, inputs), **attributes)
        if isinstance(results, tuple):
            return tuple(_narrowed(result, dtype) for result in results)
        return _narrowed(results, dtype)

    return evaluated  # type: ignore[return-value]


def _narrowed(result: Value, dtype: Any) -> Value:
    return astype(result, dtype) if getattr(result, "dtype", None) == np.float32 else result


def is_integer(x: Value) -> bool:
    """Whether `x` holds integers; arrays of symbolic sizes do."""
    return is_sizes(x) or bool(jnp.issubdtype(x.dtype, jnp.integer))


def sizes(values: Value) -> tuple[Any, ...]:
    """The entries of a shape, axes or pads input: python ints, and symbolic sizes as they are."""
    return tuple(int(v) if isinstance(v, (int, np.integer)) else v for v in np.ravel(values))


def axis_index(axis: int, rank: int) -> int:
    """`axis` counted from the front."""
    if not -rank <= axis < max(rank, 1):
        raise InvalidInputError("An axis must lie within the tensor", got=f"axis {axis} of a tensor of rank {rank}")
    return int(axis) % max(rank, 1)


def along_axis(function: Callable[[int], Value], axis: Value, rank: int) -> Value:
    """`function(axis)`, whose result has one shape along every axis; a traced axis chooses among all of them."""
    if known(axis):
        return function(axis_index(int(axis), rank))
    return jax.lax.switch(axis % rank, [partial(function, at) for at in range(rank)])


def axis_indices(axes: Value, rank: int) -> tuple[int, ...]:
    """Distinct axes counted from the front."""
    found = tuple(axis_index(axis, rank) for axis in sizes(axes))
    if len(set(found)) != len(found):
        raise InvalidInputError("Each axis must be named once", got=f"axes {found}")
    return found


def old_broadcast(b: Value, rank: int, axis: int | None, broadcast: int) -> Value:
    """Lines `b` up with a tensor of `rank` axes from `axis` on, as opsets 1 to 6 say."""
    if not broadcast or axis is None:
        return b
    start = axis_index(axis, rank)
    return xp(b).reshape(b, b.shape + (1,) * (rank - start - b.ndim))


def register_binary(name: str, function: Callable[[Value, Value], Value]) -> None:
    """Registers a broadcasting operator of two inputs in its old (opsets 1 to 6) and its present form."""

    def old(
        a: Value,
        b: Value,
        /,
        *,
        axis: int | None = None,
        broadcast: int = 0,
        consumed_inputs: Sequence[int] | None = None,
    ) -> Value:
        return function(a, old_broadcast(b, a.ndim, axis, broadcast))

    def present(a: Value, b: Value, /) -> Value:
        return function(a, b)

    op(name)(old)
    op(name, since=7)(present)


def register_unary(name: str, function: Callable[[Value], Value]) -> None:
    """Registers an operator of one input in its old (opsets 1 to 5) and its present form."""

    def old(x: Value, /, *, consumed_inputs: Sequence[int] | None = None) -> Value:
        return function(x)

    def present(x: Value, /) -> Value:
        return function(x)

    op(name)(old)
    op(name, since=6)(present)


def module_for(shape: Sequence[Any], *values: Value) -> Any:
    """numpy when `shape` has no symbolic size and every value is concrete, else jax.numpy."""
    return xp(*values) if all(isinstance(dim, (int, np.integer)) for dim in shape) else jnp


def known(value: Value) -> bool:
    """Whether a value can be looked at now: it is concrete, or an array outside of any trace."""
    return value is None or not isinstance(value, jax.core.Tracer)


def finite_range(dtype: Any) -> tuple[Any, Any]:
    """The least and the largest finite value of a type."""
    if np.dtype(dtype).kind == "b":
        return False, True
    info: Any = jnp.finfo if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo
    return info(dtype).min, info(dtype).max


def divide(x: Value, scale: Value) -> Value:
    """`x / scale`, correctly rounded.

    XLA turns a division by a broadcast scalar into a product with its reciprocal, which moves exact ties of the
    rounding that follows to the other side; behind a choice that falls out one way it cannot see that all divisors are
    one number. (A barrier does it as well, and makes a whole tensor of divisors.)
    """
    if concrete(x, scale):
        return np.divide(x, scale)
    return x / jnp.where(x == x, scale, x)


def rounded(product: Value) -> Value:
    """Rounds a product before anything is added to it.

    XLA on CPU contracts a multiplication and the addition after it, and skips the rounding between them. A maximum with
    the least finite number keeps the two apart, where a maximum with -inf would be optimised away; -inf itself goes by.
    """
    return jnp.where(product == -jnp.inf, product, jnp.maximum(product, finite_range(product.dtype)[0]))


def add_at(x: Value, index: np.ndarray, values: Value) -> Value:
    """`x` with values added at places of its last axis; those of equal places add up."""
    where: Any = (Ellipsis, index)
    if not concrete(x, values):
        return jnp.asarray(x).at[where].add(values)
    out = np.array(x)
    np.add.at(out, where, values)
    return out
