"""The k largest scores of each row, exactly: (..., N) -> values and indices, each (..., k).

Types: as in `paired`: real numbers in, float32 out; bfloat16 and float16 are exact in float32.

Order: descending; equal scores by index, the lowest first, and 0 equals -0.

NaN rule: NaN ranks with minus infinity, which is to say last, and is returned as NaN.

Bounds: 1 <= k <= N, N below 2**31.

How: the largest score of each bin, the k best bins, and the k best of what these hold. Every one of the k best scores
lies in one of the k best bins; where bins are of neighbours, in this order too: what precedes a bin's best score
precedes the bin.
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
    """The `k` largest scores of each row, and where they are.

    Args:
      scores: (..., N), real numbers.
      k: how many, from 1 to N.
      implementation: "xla", "reference", or None for the first that serves the call.

    Returns:
      values (..., k), float32, descending, and indices (..., k), int32. Equal scores, NaN: see the head of this file.

    Raises:
      InvalidInputError: `k` is not from 1 to N, a type is not real, or an unknown variant.
    """
    array = as_float32(scores, "largest: scores")
    check_count(k, array.shape[-1], "largest")
    return run("largest", VARIANTS, implementation, array, k)


def check_count(k: int, available: int, where: str) -> None:
    """Refuses a `k` that is not from 1 to `available`."""
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= available:
        raise InvalidInputError(f"`k` is an integer from 1 to {available}", got=repr(k), where=where)


def _ranked(scores: Float[Array, "b n"]) -> Float[Array, "b n"]:
    """Scores whose total order is the order by value: no NaN, one zero."""
    return jnp.where(scores == 0, 0.0, jnp.where(jnp.isnan(scores), -jnp.inf, scores))


@partial(jax.jit, static_argnames="k")
@jax.named_scope("largest.reference")
def reference(scores: Float[Array, "*rows n"], k: int) -> tuple[Float[Array, "*rows k"], Int[Array, "*rows k"]]:
    """The definition: sort, and keep the first."""
    order = jnp.argsort(_ranked(scores), axis=-1, stable=True, descending=True)[..., :k]
    return jnp.take_along_axis(scores, order, axis=-1), order.astype(jnp.int32)


# Bins of up to this many scores, and a division only where what is left to sort is below half.
_WIDEST = 128


def _width(n: int, k: int) -> int:
    """How wide a bin is, 1 for no bins: near sqrt(n / k), where both steps sort as many; a divisor if one is near."""
    ideal = min(_WIDEST, math.isqrt(n // k))
    if ideal < 4:
        return 1
    return next((w for w in range(ideal, ideal // 2, -1) if n % w == 0), ideal)


def where_largest(scores: Float[Array, "b n"], k: int) -> Int[Array, "b k"]:
    """Indices of the `k` largest of scores without NaN, in order."""
    n = scores.shape[1]
    width = _width(n, k)
    if width == 1:
        return lax.top_k(_ranked(scores), k)[1].astype(jnp.int32)
    bins = _bins(scores, width)
    best = lax.sort(where_largest(jnp.max(bins, axis=2), k), dimension=1)  # so that candidates are in order of index
    candidates = jnp.take_along_axis(bins, best[:, :, None], axis=1, mode="promise_in_bounds")
    place = where_largest(candidates.reshape(best.shape[0], k * width), k)
    return jnp.take_along_axis(best, place // width, axis=1, mode="promise_in_bounds") * width + place % width


def _bins(scores: Float[Array, "b n"], width: int) -> Float[Array, "b bins width"]:
    n = scores.shape[1]
    if n % width:
        scores = jnp.pad(scores, ((0, 0), (0, -n % width)), constant_values=-jnp.inf)
    return scores.reshape(scores.shape[0], -1, width)


# In how many slices a row is compared entry by entry: each as long as a bin has rows, and all read in one pass.
_SLICES, _SLICES_OF_LONG_ROWS, _LONG = 16, 32, 2**16
_BINS_TO_SPARE = 8
_AGAIN = 64
"""Rows done again at a time."""


@partial(jax.jit, static_argnames="k")
@jax.named_scope("largest.xla")
def xla(scores: Float[Array, "*rows n"], k: int) -> tuple[Float[Array, "*rows k"], Int[Array, "*rows k"]]:
    """By bins, twice or more. NaN is put last in a copy of the rows that have one."""
    n = scores.shape[-1]
    rows = scores.reshape(math.prod(scores.shape[:-1]), n)
    slices = _SLICES_OF_LONG_ROWS if n >= _LONG else _SLICES
    if rows.shape[0] == 0:
        order = jnp.zeros((0, k), jnp.int32)
    elif -(-n // slices) < _BINS_TO_SPARE * (k + 1):
        order = where_largest(_ranked(rows), k)
    else:
        order = _by_slices(rows, k, slices)
    values = jnp.take_along_axis(rows, order, axis=1, mode="promise_in_bounds")
    shape = (*scores.shape[:-1], k)
    return values.reshape(shape), order.astype(jnp.int32).reshape(shape)


def _by_slices(rows: Float[Array, "b n"], k: int, slices: int) -> Int[Array, "b k"]:
    """As `where_largest`, of any scores. Bin j holds entry j of each slice, so one pass of comparisons fills all bins.

    Bins do not follow each other by index, so rows where a bin left out is as good as the last one kept, and rows with
    NaN, are done again by bins that do.
    """
    n = rows.shape[1]
    length = -(-n // slices)
    parts = [rows[:, i * length : (i + 1) * length] for i in range(-(-n // length))]
    parts[-1] = jnp.pad(parts[-1], ((0, 0), (0, length - parts[-1].shape[1])), constant_values=-jnp.inf)
    # XLA's maximum on a CPU loses NaN; a sum in the same pass sees it
    maxima = jnp.where(jnp.isnan(reduce(jnp.add, parts)), jnp.nan, reduce(jnp.maximum, parts))
    maxima = lax.optimization_barrier(maxima)
    bins = where_largest(maxima, k + 1)
    ends = jnp.take_along_axis(maxima, bins[:, -2:], axis=1, mode="promise_in_bounds")
    waiting = jnp.isnan(jnp.sum(maxima, axis=1)) | ~(ends[:, 0] > ends[:, 1])
    kept = lax.sort(bins[:, :-1], dimension=1)
    starts = jnp.arange(len(parts), dtype=jnp.int32)[None, :, None] * length
    index = (starts + kept[:, None, :]).reshape(-1, len(parts) * k)
    found = jnp.take_along_axis(rows, jnp.minimum(index, n - 1), axis=1, mode="promise_in_bounds")
    place = where_largest(jnp.where(index < n, found, -jnp.inf), k)  # candidates are in order of index
    order = jnp.take_along_axis(index, place, axis=1, mode="promise_in_bounds")

    def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
        order, waiting = state
        (at,) = jnp.nonzero(waiting, size=min(_AGAIN, waiting.shape[0]), fill_value=waiting.shape[0])
        some = where_largest(_ranked(rows.at[at].get(mode="clip")), k)
        return order.at[at].set(some, mode="drop"), waiting.at[at].set(False, mode="drop")

    return lax.while_loop(lambda state: jnp.any(state[1]), again, (order, waiting))[0]


VARIANTS: dict[str, Callable[[Array, int], tuple[Array, Array]]] = {"xla": xla, "reference": reference}
