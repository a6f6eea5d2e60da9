"""The k largest scores of each row, exactly: (..., N) -> values and indices, each (..., k).

Types: as in `paired`: real numbers in, float32 out; bfloat16 and float16 convert exactly.

Order: descending; equal scores by index, the lowest first, and 0 equals -0.

NaN rule: NaN ranks with minus infinity, that is last, and is returned as NaN.

Bounds: 1 <= k <= N, N below 2**31.

Gradients: those of the values, which are entries of the scores; the choice of entries has none.

Method: take the largest score of each bin, the k best bins, and the k best scores of these bins. Each of the k best
scores lies in one of the k best bins. Where bins hold neighbouring entries this respects ties too: an entry that
precedes another bin's best entry is in a bin that precedes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.dispatch import run
from modeldiff_jax.kernels.inputs import ArrayInput, as_float32


def largest(
    scores: ArrayInput, k: int, *, implementation: str | None = None
) -> tuple[Float[Array, "*rows k"], Int[Array, "*rows k"]]:
    """Returns the `k` largest scores of each row and their indices.

    Args:
      scores: (..., N), real numbers.
      k: number of scores, from 1 to N.
      implementation: "xla", "reference", or None for the first that serves the call.

    Returns:
      values (..., k), float32, descending, and indices (..., k), int32. Equal scores are ordered by index; NaN ranks
      with minus infinity, and is returned as NaN.

    Raises:
      InvalidInputError: `k` is not from 1 to N, a type is not real, or an unknown variant.
    """
    array = as_float32(scores, "largest: scores")
    check_count(k, array.shape[-1], "largest")
    return run("largest", VARIANTS, implementation, array, k)


def check_count(k: int, available: int, where: str) -> None:
    """Raises InvalidInputError unless `k` is an integer from 1 to `available`."""
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= available:
        raise InvalidInputError(f"`k` is an integer from 1 to {available}", got=repr(k), where=where)


def _rankable(scores: Float[Array, "*rows n"]) -> Float[Array, "*rows n"]:
    """Maps scores so that their total order is the documented one: NaN becomes -inf, -0 becomes 0."""
    return jnp.where(scores == 0, 0.0, jnp.where(jnp.isnan(scores), -jnp.inf, scores))


@partial(jax.jit, static_argnames="k")
@jax.named_scope("largest.reference")
def reference(scores: Float[Array, "*rows n"], k: int) -> tuple[Float[Array, "*rows k"], Int[Array, "*rows k"]]:
    """Sorts each row and returns the first `k` scores: the definition."""
    order = jnp.argsort(_rankable(lax.stop_gradient(scores)), axis=-1, stable=True, descending=True)[..., :k]
    return jnp.take_along_axis(scores, order, axis=-1), order.astype(jnp.int32)


_MOST_PER_BIN = 128
_LEAST_PER_BIN = 4
"""Smaller bins are not worth a level: they would leave more than half of the work."""


def _entries_per_bin(n: int, k: int) -> int:
    """Returns the bin size for `n` scores, 1 for no bins.

    It is near sqrt(n / k), where both levels rank equally many entries, and a divisor of `n` if there is one nearby.
    """
    ideal = min(_MOST_PER_BIN, math.isqrt(n // k))
    if ideal < _LEAST_PER_BIN:
        return 1
    return next((size for size in range(ideal, ideal // 2, -1) if n % size == 0), ideal)


def argtop_k(scores: Float[Array, "b n"], k: int) -> Int[Array, "b k"]:
    """Returns the indices of the `k` largest scores of each row, in order; scores hold no NaN."""
    n = scores.shape[1]
    size = _entries_per_bin(n, k)
    if size == 1:
        return lax.top_k(_rankable(scores), k)[1].astype(jnp.int32)
    bins = _binned(scores, size)
    best = lax.sort(argtop_k(jnp.max(bins, axis=2), k), dimension=1)  # sorted, so candidates are ordered by index
    candidates = jnp.take_along_axis(bins, best[:, :, None], axis=1, mode="promise_in_bounds")
    position = argtop_k(candidates.reshape(best.shape[0], k * size), k)
    return jnp.take_along_axis(best, position // size, axis=1, mode="promise_in_bounds") * size + position % size


def _binned(scores: Float[Array, "b n"], size: int) -> Float[Array, "b bins size"]:
    n = scores.shape[1]
    if n % size:
        scores = jnp.pad(scores, ((0, 0), (0, -n % size)), constant_values=-jnp.inf)
    return scores.reshape(scores.shape[0], -1, size)


_SLICES, _SLICES_OF_LONG_ROWS, _LONG_ROW = 16, 32, 2**16
"""Number of slices that a row is cut into; a bin has one entry of each."""
_LEAST_BINS_PER_RESULT = 8
_REDONE_AT_ONCE = 64


@partial(jax.jit, static_argnames="k")
@jax.named_scope("largest.xla")
def xla(scores: Float[Array, "*rows n"], k: int) -> tuple[Float[Array, "*rows k"], Int[Array, "*rows k"]]:
    """Ranks by two or more levels of bins, and rows with NaN in a cleaned copy."""
    n = scores.shape[-1]
    rows = scores.reshape(math.prod(scores.shape[:-1]), n)
    constant = lax.stop_gradient(rows)
    slices = _SLICES_OF_LONG_ROWS if n >= _LONG_ROW else _SLICES
    if rows.shape[0] == 0:
        order = jnp.zeros((0, k), jnp.int32)
    elif -(-n // slices) < _LEAST_BINS_PER_RESULT * (k + 1):
        order = argtop_k(_rankable(constant), k)
    else:
        order = _argtop_k_by_slices(constant, k, slices)
    values = jnp.take_along_axis(rows, order, axis=1, mode="promise_in_bounds")
    shape = (*scores.shape[:-1], k)
    return values.reshape(shape), order.reshape(shape)


def _argtop_k_by_slices(rows: Float[Array, "b n"], k: int, slices: int) -> Int[Array, "b k"]:
    """Returns the same as `argtop_k`, for scores that may hold NaN, in one pass over them.

    Bin j holds entry j of each slice, so all maxima are elementwise maxima of whole slices. These bins are not ordered
    by index. Rows in which another bin ties with the last of the k best, and rows with NaN, are therefore ranked again
    by `argtop_k`.
    """
    n = rows.shape[1]
    length = -(-n // slices)
    parts = [rows[:, i * length : (i + 1) * length] for i in range(-(-n // length))]
    parts[-1] = jnp.pad(parts[-1], ((0, 0), (0, length - parts[-1].shape[1])), constant_values=-jnp.inf)
    # XLA's maximum on a CPU loses NaN; a sum in the same pass keeps it.
    maxima = jnp.where(jnp.isnan(reduce(jnp.add, parts)), jnp.nan, reduce(jnp.maximum, parts))
    maxima = lax.optimization_barrier(maxima)
    bins = argtop_k(maxima, k + 1)
    last_two = jnp.take_along_axis(maxima, bins[:, -2:], axis=1, mode="promise_in_bounds")
    unsettled = jnp.isnan(jnp.sum(maxima, axis=1)) | ~(last_two[:, 0] > last_two[:, 1])
    best = lax.sort(bins[:, :-1], dimension=1)
    starts = jnp.arange(len(parts), dtype=jnp.int32)[None, :, None] * length
    index = (starts + best[:, None, :]).reshape(-1, len(parts) * k)
    candidates = jnp.take_along_axis(rows, jnp.minimum(index, n - 1), axis=1, mode="promise_in_bounds")
    position = argtop_k(jnp.where(index < n, candidates, -jnp.inf), k)  # candidates are ordered by index
    order = jnp.take_along_axis(index, position, axis=1, mode="promise_in_bounds")

    def redo(state: tuple[Array, Array]) -> tuple[Array, Array]:
        order, unsettled = state
        total = unsettled.shape[0]
        (chosen,) = jnp.nonzero(unsettled, size=min(_REDONE_AT_ONCE, total), fill_value=total)
        redone = argtop_k(_rankable(rows.at[chosen].get(mode="clip")), k)
        return order.at[chosen].set(redone, mode="drop"), unsettled.at[chosen].set(False, mode="drop")

    return lax.while_loop(lambda state: jnp.any(state[1]), redo, (order, unsettled))[0]


VARIANTS: dict[str, Callable[[Array, int], tuple[Array, Array]]] = {"xla": xla, "reference": reference}
