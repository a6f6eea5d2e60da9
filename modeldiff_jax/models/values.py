"""Whether a value's type and entries fit an input, in one rule for calls and bindings."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.types import TensorSpec

_ORDER = (np.bool_, jnp.integer, jnp.floating, jnp.complexfloating)


def misfit(array: Any, spec: TensorSpec) -> str:
    """Returns what of an array does not fit an input; empty where it fits.

    Booleans fit every number, integers floats, and floats complex numbers; floats are rounded, but an integer must be
    one that the declared type holds. Strings fit strings alone.

    Args:
      array: numpy or JAX array, of the right shape; entries of a traced one are not looked at.
      spec: of the input.
    """
    if spec.holds_strings:
        strings = array.dtype.kind == "U" or all(isinstance(entry, str) for entry in np.ravel(array))
        return "" if strings else f"dtype {array.dtype}"
    if array.dtype == spec.dtype:
        return ""
    given, wanted = _rank(array.dtype), _rank(spec.dtype)
    traced = isinstance(array, jax.core.Tracer)
    if (
        given is None
        or wanted is None
        or given > wanted
        or (traced and not np.can_cast(array.dtype, spec.dtype, "same_kind"))
    ):
        return f"dtype {array.dtype}"
    integers = _ORDER[given] is jnp.integer and given == wanted
    if traced or not integers or not array.size or np.can_cast(array.dtype, spec.dtype, "safe"):
        return ""
    held, ends = np.asarray(array), jnp.iinfo(spec.dtype)
    low, high = int(held.min()), int(held.max())
    return "" if ends.min <= low and high <= ends.max else f"values from {low} to {high}"


def _rank(dtype: np.dtype[Any]) -> int | None:
    """How general a kind of numbers is; `None` for what is no number."""
    return next((i for i, kind in enumerate(_ORDER) if jnp.issubdtype(dtype, kind)), None)
