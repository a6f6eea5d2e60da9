"""Whether the type and the entries of a value fit an input: one rule for calls and bindings."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_KINDS = (np.bool_, jnp.integer, jnp.floating, jnp.complexfloating)


def misfit(array: Any, dtype: np.dtype[Any]) -> str:
    """Returns what of an array does not fit an input; empty where it fits.

    Booleans fit every number, integers fit floats, and floats complex numbers. Floats are rounded, but an integer must
    be one that the input's type holds. Strings fit strings alone.

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
    held, ends = np.asarray(array), iinfo(dtype)
    low, high = int(held.min()), int(held.max())
    return "" if ends.min <= low and high <= ends.max else f"values from {low} to {high}"


def _kind(dtype: np.dtype[Any]) -> int | None:
    """The place of a type's kind among `_KINDS`; `None` for what is no number."""
    return next((i for i, kind in enumerate(_KINDS) if jnp.issubdtype(dtype, kind)), None)
