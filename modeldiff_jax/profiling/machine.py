"""What the device can do at most, measured and never looked up: how fast it copies, how fast it multiplies."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_LARGE_COPY = 2**28
"""Bytes of the first array copied: more than caches hold."""
_LARGEST_COPY = 2**31
_COPY_SECONDS = 2e-3
_PRODUCT_SECONDS = 0.02
"""A measurement at least this long is not one of the time it takes to start a program."""
_SMALL_PRODUCT, _LARGEST_PRODUCT = 512, 8192
_RUNS = 5
_SMALL = 2**12

ALWAYS = ("float32", "bfloat16")
"""The kinds of product measured whether a program needs them or not."""
DEFAULT = "float32 by default"
"""Products of float32 at JAX's default precision, which on GPU and TPU rounds to fewer bits."""


class Machine:
    """The ceilings of the default device; each is measured when it is first asked for."""

    def __init__(self) -> None:
        self._products: dict[str, float] = {}
        self._copies: dict[int, float] = {}
        self._start: float | None = None
        self._large: float | None = None

    @property
    def start_seconds(self) -> float:
        """What a program takes that computes nothing."""
        if self._start is None:
            nothing, x = jax.jit(lambda x: x + 1), _ones((), np.dtype(np.float32))
            self._start = _shortest(lambda: nothing(x))
        return self._start

    @property
    def copy_rate(self) -> float:
        """Bytes a second, those read and those written, of a copy larger than every cache."""
        if self._large is None:
            size = _LARGE_COPY
            self._large, seconds = _copy(size)
            while seconds < _COPY_SECONDS and size < _LARGEST_COPY:
                size *= 2
                rate, seconds = _copy(size)
                self._large = max(self._large, rate)
        return self._large

    def memory_rate(self, moved: float) -> float:
        """Bytes a second for a program that moves `moved` bytes in all: the rate of a copy that moves as many, which
        may stay in a cache, or of a large one if that is higher."""
        size = max(_SMALL, 2 ** int(np.ceil(np.log2(max(moved, 2) / 2))))
        if size >= _LARGE_COPY:
            return self.copy_rate
        if size not in self._copies:
            self._copies[size] = _copy(size)[0]
        return max(self._copies[size], self.copy_rate)

    def product_rate(self, kind: str) -> float:
        """Operations a second of a large matrix product, two for each multiplication and addition.

        Args:
          kind: a dtype's name, or `DEFAULT`.
        """
        if kind not in self._products:
            self._products[kind] = _product(kind)
        return self._products[kind]

    @property
    def products(self) -> dict[str, float]:
        """Kind -> rate, of `ALWAYS` and of what else was asked for."""
        for kind in ALWAYS:
            self.product_rate(kind)
        return dict(self._products)

    def to_dict(self) -> dict[str, Any]:
        """The ceilings as JSON-able data."""
        return {
            "copy_bytes_per_second": self.copy_rate,
            "products": self.products,
            "start_seconds": self.start_seconds,
        }


def _shortest(call: Callable[[], Any], runs: int = _RUNS) -> float:
    """The shortest of several runs, the first of them unmeasured."""
    jax.block_until_ready(call())
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(call())
        best = min(best, time.perf_counter() - start)
    return best


@partial(jax.jit, static_argnums=(0, 1))
def _ones(shape: tuple[int, ...], dtype: np.dtype[Any]) -> jax.Array:
    return jnp.ones(shape, dtype)


def _copy(size: int) -> tuple[float, float]:
    """Bytes a second and seconds of reading and writing an array of `size` bytes.

    It is written where it was read: memory newly asked of an operating system costs more than copying.
    """
    negate = jax.jit(jnp.negative, donate_argnums=0)
    x = [_ones((size // 4,), np.dtype(np.float32))]

    def step() -> jax.Array:
        x[0] = negate(x[0])
        return x[0]

    seconds = _shortest(step)
    return 2 * size / seconds, seconds


def _product(kind: str) -> float:
    default = kind == DEFAULT
    precision = jax.lax.Precision.DEFAULT if default else jax.lax.Precision.HIGHEST
    dtype = jnp.dtype("float32" if default else kind)
    accumulated = jnp.int32 if dtype.kind in "iu" else np.promote_types(dtype, np.float32)
    multiply = jax.jit(partial(jnp.matmul, precision=precision, preferred_element_type=accumulated))
    size, best, seconds = _SMALL_PRODUCT, 0.0, 0.0
    while seconds < _PRODUCT_SECONDS and size <= _LARGEST_PRODUCT:
        x = _ones((size, size), dtype)
        seconds = _shortest(lambda x=x: multiply(x, x), 3)  # type: ignore[misc]
        best, size = max(best, 2 * size**3 / seconds), 2 * size
    return best
