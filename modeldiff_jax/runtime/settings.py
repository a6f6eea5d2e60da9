"""Runs code under JAX's default settings, which the caller's program may have changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import jax
import numpy as np

T = TypeVar("T")


@contextmanager
def default_promotion() -> Iterator[None]:
    """Broadcasts ranks and promotes types as JAX does by default, whatever the caller's settings are."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def on_device(values: T) -> T:
    """Puts the numpy arrays of a pytree on the default device, explicitly, as `jax.transfer_guard("disallow")` asks."""
    if not any(isinstance(leaf, np.ndarray | np.generic) for leaf in jax.tree.leaves(values)):
        return values
    return jax.tree.map(lambda x: jax.device_put(x) if isinstance(x, np.ndarray | np.generic) else x, values)
