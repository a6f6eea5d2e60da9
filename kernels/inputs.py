"""What a kernel accepts: numpy, jax and dlpack arrays of real numbers, all computed in float32, of any magnitude."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from modeldiff_jax.errors import InvalidInputError


class SupportsDLPack(Protocol):
    """An array of another library: torch, cupy and most others."""

    def __dlpack__(self, *, stream: Any = None) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...


TINY = 2.0**-126
"""The smallest normal float32."""
ArrayInput: TypeAlias = jax.Array | np.ndarray | SupportsDLPack


def as_float32(x: ArrayInput, where: str) -> jax.Array:
    """`x` as a jax float32 array, with at least one axis and no empty last one.

    float16 and bfloat16 are exact in float32. float64 and integers above 2**24 are rounded to nearest, and what is
    beyond float32's range becomes infinity. Booleans become 0 and 1.

    Args:
      x: the array.
      where: kernel and argument, for messages.

    Raises:
      InvalidInputError: not an array, not of real numbers, no axis, or an empty last axis.
    """
    array = x if isinstance(x, jax.Array | np.ndarray) else _from_dlpack(x, where)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise InvalidInputError("The entries are real numbers", got=f"dtype {array.dtype}", where=where)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise InvalidInputError(
            "The last axis holds the entries of a vector, at least one", got=f"shape {array.shape}", where=where
        )
    if isinstance(array, np.ndarray):
        # Cast before jax sees it: without 64-bit mode jax would wrap an int64 to int32 first.
        with np.errstate(over="ignore", invalid="ignore"):
            return jnp.asarray(array.astype(np.float32))
    return array.astype(jnp.float32)


def power_of_two(x: Float[Array, "*rows c"]) -> Float[Array, "*rows 1"]:
    """A power of two near the largest magnitude in each vector, constant under differentiation.

    Multiplying by its inverse is exact and brings that magnitude near 1.
    """
    largest = lax.reduce_precision(jnp.max(jnp.abs(x), axis=-1, keepdims=True), exponent_bits=8, mantissa_bits=0)
    return lax.stop_gradient(jnp.clip(largest, TINY, 1 / TINY))  # so that the inverse is a normal number


def _from_dlpack(x: SupportsDLPack, where: str) -> jax.Array | np.ndarray:
    if not hasattr(x, "__dlpack__"):
        raise InvalidInputError(
            "An argument is a numpy, jax or dlpack array",
            got=type(x).__name__,
            where=where,
            fix="wrap it: numpy.asarray(...)",
        )
    try:
        # numpy keeps 64-bit types, which jax narrows; jax knows bfloat16 and devices, which numpy does not.
        view = np.from_dlpack(x)
        return jax.dlpack.from_dlpack(x) if view.dtype == np.float32 else view  # the first shares the memory
    except (BufferError, RuntimeError, TypeError, ValueError):
        pass
    try:
        return jax.dlpack.from_dlpack(x)
    except Exception as cause:  # every library raises its own
        raise InvalidInputError("A dlpack array can be read by jax", got=str(cause), where=where) from cause
