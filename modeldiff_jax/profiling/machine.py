"""Limits of the device, measured and not taken from a table: the rates of copies and of matrix products."""

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
"""Least time of a measured product, so that the time to start a program does not count."""
_SMALL_PRODUCT, _LARGEST_PRODUCT = 512, 8192
_RUNS = 5
_SMALL = 2**12

ALWAYS = ("float32", "bfloat16")
"""Kinds of product that are measured in any case."""
DEFAULT = "float32 by default"
"""Products of float32 at JAX's default precision, which on GPU and TPU rounds to fewer bits."""


class Machine:
    """The limits of the default device; each is measured when it is first read."""

    def __init__(self) -> None:
        self._products: dict[str, float] = {}
        self._copies: dict[int, float] = {}
        self._start: float | None = None
        self._large: float | None = None

    @property
    def start_seconds(self) -> float:
        """Seconds of a program that computes nothing."""
        if self._start is None:
            program, x = jax.jit(lambda x: x + 1), _ones((), np.dtype(np.float32))
            self._start = _shortest(lambda: program(x))
        return self._start

    @property
    def copy_rate(self) -> float:
        """Bytes read and written per second by a copy larger than every cache."""
        if self._large is None:
            size = _LARGE_COPY
            self._large, seconds = _copy(size)
            while seconds < _COPY_SECONDS and size < _LARGEST_COPY:
                size *= 2
                rate, seconds = _copy(size)
                self._large = max(self._large, rate)
        return self._large

    def memory_rate(self, moved: float) -> float:
        """Returns the bytes per second that a program can move which moves `moved` bytes in all.

        It is the rate of a copy of as many bytes, which may fit a cache, or of a large copy if that is higher.
        """
        size = max(_SMALL, 2 ** int(np.ceil(np.log2(max(moved, 2) / 2))))
        if size >= _LARGE_COPY:
            return self.copy_rate
        if size not in self._copies:
            self._copies[size] = _copy(size)[0]
        return max(self._copies[size], self.copy_rate)

    def product_rate(self, kind: str) -> float:
        """Returns the operations per second of a large matrix product, two for each multiplication and addition.

        Args:
          kind: a dtype's name, or `DEFAULT`.
        """
        if kind not in self._products:
            self._products[kind] = _product(kind)
        return self._products[kind]

    @property
    def products(self) -> dict[str, float]:
        """Kind of product -> rate, for `ALWAYS` and all other kinds measured so far."""
        for kind in ALWAYS:
            self.product_rate(kind)
        return dict(self._products)

    def to_dict(self) -> dict[str, Any]:
        """Returns the limits as JSON-able data."""
        return {
            "copy_bytes_per_second": self.copy_rate,
            "products": self.products,
            "start_seconds": self.start_seconds,
        }


def _shortest(call: Callable[[], Any], runs: int = _RUNS) -> float:
    """Returns the seconds of the shortest of several runs, after one that does not count."""
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
    """Returns bytes per second, and seconds, of reading and writing an array of `size` bytes.

    The result takes the place of the argument: to allocate new memory takes longer than to copy.
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
