"""Sizes of axes as values. Under `jax.export` some are symbolic; numpy stores these in arrays of objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.runtime import x64


def as_sizes(dims: Sequence[Any]) -> np.ndarray:
    """Returns sizes in an array, of int64 or, if any is symbolic, of objects."""
    numbers = all(isinstance(dim, (int, np.integer)) for dim in dims)
    array = np.empty(len(dims), np.int64 if numbers else object)
    array[:] = dims
    return array


def is_sizes(x: Any) -> bool:
    """Returns whether `x` is an array with symbolic sizes in it."""
    return isinstance(x, np.ndarray) and x.dtype == object and not any(isinstance(v, (str, bytes)) for v in x.flat)


def traced_sizes(x: np.ndarray) -> jax.Array:
    """Returns symbolic sizes as traced int64, which are data and no longer usable as a shape."""
    return x64.as_array(jnp.reshape(jnp.stack([jnp.asarray(v) for v in x.flat]), x.shape), np.int64)


def settle(value: Any) -> Any:
    """Returns a result as an array: numpy returns scalars for rank 0, and objects even if no size is symbolic now."""
    if isinstance(value, (jax.Array, tuple)) or value is None:
        return value
    if not isinstance(value, np.ndarray):
        kind = None if isinstance(value, (np.generic, int, float, bool)) else object
        return np.asarray(value, kind)
    if value.dtype == object and value.size and all(isinstance(v, (int, np.integer)) for v in value.flat):
        return value.astype(bool if all(isinstance(v, bool) for v in value.flat) else np.int64)
    return value
