"""Whether the type and the entries of a value fit an input: one rule for calls and bindings."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_KINDS = (np.bool_, jnp.integer, jnp.floating, jnp.complexfloating)


def misfit(array: Any, dtype: np.dtype[Any]) -> str:
    """Returns the type or values of an array that do not fit an input; empty where all fit.

    Booleans fit every number, integers fit floats, and floats complex numbers. Floats are rounded, but integers must
    lie within the range of the input's type. Strings fit strings only.

    Args:
      array: numpy or JAX array of the right shape; the entries of a traced one are unknown.
      dtype: of the input.
    """
    if dtype.kind == "O":
        strings = array.dtype.kind == "U" or all(isinstance(entry, str) for entry in np.ravel(array))
        return "" if strings else f"dtype {array.dtype}"
    if array.dtype == dtype:
        return ""
    given, wanted = _kind(array.dtype), _kind(dtype)
    traced = isinstance(array, jax.core.Tracer)
    if given is None or wanted is None or given > wanted:
        return f"dtype {array.dtype}"
    if traced and not np.can_cast(array.dtype, dtype, "same_kind"):
        return f"dtype {array.dtype}"
    integers = given == wanted == _KINDS.index(jnp.integer)
    if traced or not integers or not array.size or np.can_cast(array.dtype, dtype, "safe"):
        return ""
    iinfo: Any = jnp.iinfo
    values, info = np.asarray(array), iinfo(dtype)
    low, high = int(values.min()), int(values.max())
    return "" if info.min <= low and high <= info.max else f"values from {low} to {high}"


def _kind(dtype: np.dtype[Any]) -> int | None:
    """Returns the index of a type's kind in `_KINDS`; `None` if it is not a type of numbers."""
    return next((i for i, kind in enumerate(_KINDS) if jnp.issubdtype(dtype, kind)), None)
