"""Conversion of array arguments: numpy, jax and dlpack arrays of real numbers in, jax float32 arrays out."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError


@runtime_checkable
class SupportsDLPack(Protocol):
    """Array of another library that exports dlpack: torch, cupy and most others."""

    def __dlpack__(self, *, stream: Any = None) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...


AnyArray: TypeAlias = jax.Array | np.ndarray
ArrayInput: TypeAlias = AnyArray | SupportsDLPack


def as_float32(x: ArrayInput | Any, where: str) -> jax.Array:
    """Converts an array to float32, on its device if it is a jax array, else on the default device.

    float16 and bfloat16 convert exactly. float64 and integers above 2**24 are rounded to nearest, and values beyond
    float32's range become infinite. Booleans become 0 and 1.

    Args:
      x: array with at least one axis, the last one not empty.
      where: kernel and argument, for messages.

    Raises:
      InvalidInputError: not an array, not of real numbers, no axis, or an empty last axis.
    """
    array = x if isinstance(x, AnyArray) else _from_dlpack(x, where)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise InvalidInputError("The entries are real numbers", got=f"dtype {array.dtype}", where=where)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise InvalidInputError(
            "The last axis holds the entries of a vector, at least one", got=f"shape {array.shape}", where=where
        )
    if isinstance(array, np.ndarray):
        # Cast in numpy: outside 64-bit mode jax would first wrap an int64 to int32. The copy also protects the result
        # from later writes to the caller's array.
        with np.errstate(over="ignore", invalid="ignore"):
            return jax.device_put(array.astype(np.float32))
    return array.astype(jnp.float32)


def _from_dlpack(x: SupportsDLPack | Any, where: str) -> AnyArray:
    if not hasattr(x, "__dlpack__"):
        raise InvalidInputError(
            "An argument is a numpy, jax or dlpack array",
            got=type(x).__name__,
            where=where,
            fix="wrap it: numpy.asarray(...)",
        )
    try:
        # numpy keeps 64-bit types, which jax narrows; jax reads bfloat16 and other devices, which numpy does not.
        array = np.from_dlpack(x)
        return jax.dlpack.from_dlpack(x) if array.dtype == np.float32 else array  # float32 is shared, not copied
    except (BufferError, RuntimeError, TypeError, ValueError):
        pass
    try:
        return jax.dlpack.from_dlpack(x)
    except Exception as cause:  # libraries raise exceptions of different types
        raise InvalidInputError("A dlpack array can be read by jax", got=str(cause), where=where) from cause
