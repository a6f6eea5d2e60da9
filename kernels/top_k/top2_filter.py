"""Filter by the two best scores of each bin: keeps the best row of the best bins, and the second score as a bound.

It reads each score once and writes two numbers per bin, so all of it stays in a CPU's cache. The row that a bin's best
score belongs to is packed into the last bits of that score. Scores are made positive first: packing then only lowers a
score by a few units in its last place, and 0 can mean "no score".
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from modeldiff_jax.kernels.prepared import Prepared
from modeldiff_jax.kernels.top_k.bin_filter import SPARE, best_and_bound
from modeldiff_jax.kernels.top_k.certificate import is_certified, score_bound
from modeldiff_jax.kernels.top_k.exact import Neighbours, Queries, measure_candidates

_QUERIES_AT_ONCE = 16
"""Queries whose bins are compared row by row at once."""


def rows_per_bin(n: int) -> int:
    """Returns the bin size for `n` rows: small, so the best rows seldom share a bin, yet with few bins to rank."""
    return 8 if n < 2**16 else 16


def score_offset(q: Queries, p: Prepared) -> Float[Array, " q"]:
    """Returns the summand that makes all scores of a query positive: twice the bound of their magnitude."""
    return 2 * score_bound(q, p)


def packing_error_bound(q: Queries, p: Prepared) -> Float[Array, " q"]:
    """Returns an upper bound of the error that the offset and the packed bits add to a score."""
    return score_bound(q, p) * (6 * (rows_per_bin(p.padded_rows.shape[0]) + 1) * 2.0**-24)


def best_two(
    products: Float[Array, "a b"],
    offset: Float[Array, "*offset"],
    bias: Float[Array, "*bias"],
    never: Bool[Array, ""],
    excluded: Int[Array, "*excluded"],
    axis: int,
    size: int,
) -> tuple[Float[Array, "*bins"], Float[Array, "*bins"]]:
    """Returns the best score of each bin along an axis, with its row packed into it, and the second best score.

    Args:
      products: inner products.
      offset: makes scores positive; broadcasts along the axis.
      bias: of each row, along the axis.
      never: False, but unknown to the compiler.
      excluded: position along the axis whose score does not count, or one outside it; broadcasts along the axis.
      axis: the axis of rows.
      size: rows per bin, a power of two. With m bins, bin i holds rows i, i + m, i + 2 m, and so on.
    """
    bins = products.shape[axis] // size

    def reduce_bins(products: Array) -> tuple[Array, Array]:
        best = second = jnp.zeros((), jnp.float32)
        for i in range(size):
            score = lax.slice_in_dim(products, i * bins, (i + 1) * bins, axis=axis)
            row = lax.broadcasted_iota(jnp.int32, score.shape, axis) + i * bins
            score = score + lax.slice_in_dim(bias, i * bins, (i + 1) * bins, axis=axis) + offset
            score = jnp.where(row == excluded, 0, jnp.maximum(score, 0))
            bits = (lax.bitcast_convert_type(score, jnp.int32) & -size) | i
            score = lax.bitcast_convert_type(bits, jnp.float32)
            if i == 0:
                best, second = score, 0 * score
            else:
                best, second = jnp.maximum(best, score), jnp.maximum(second, jnp.minimum(best, score))
        return best, second

    # A branch that is always taken. Without it XLA fuses the update of the result with the loop on a CPU, which then
    # runs slowly and on one core.
    shape = (products.shape[0], bins) if axis else (bins, products.shape[1])
    zeros = jnp.zeros(shape, jnp.float32)
    return lax.cond(never, lambda _: (zeros, zeros), reduce_bins, products)


def packed_row(best: Float[Array, "*bins"], size: int) -> Int[Array, "*bins"]:
    """Returns the number, within its bin, of the row that a best score belongs to."""
    return lax.bitcast_convert_type(best, jnp.int32) & (size - 1)


def filter_and_refine(q: Queries, p: Prepared, k: int) -> Neighbours:
    """Searches the best row of each bin, and all rows of the best bins if their second scores are too close."""
    tiles, height = p.tiles
    size = rows_per_bin(p.padded_rows.shape[0])
    bins, total = height // size, q.excluded.shape[0]
    assert p.keys is not None
    keys, query_keys, offset = p.keys, q.keys.T, score_offset(q, p)[None, :]

    def filter_tile(state: tuple[Array, Array], tile: Array) -> tuple[tuple[Array, Array], None]:
        start = tile * height
        products = jnp.matmul(
            lax.dynamic_slice_in_dim(keys, start, height), query_keys, precision=lax.Precision.HIGHEST
        )
        bias = lax.dynamic_slice_in_dim(p.bias, start, height)[:, None] * (1 / q.scale)[None, :]
        excluded = (q.excluded - start)[None, :]
        best, second = best_two(products, offset, bias, tile < 0, excluded, 0, size)
        whole_best, whole_second = state
        return (
            lax.dynamic_update_slice_in_dim(whole_best, best, tile * bins, 0),
            lax.dynamic_update_slice_in_dim(whole_second, second, tile * bins, 0),
        ), None

    empty = jnp.zeros((tiles * bins, total), jnp.float32)
    best, second = lax.scan(filter_tile, (empty, empty), jnp.arange(tiles, dtype=jnp.int32))[0]
    return refine(best.T, second.T, q, p, k)


def refine(best: Float[Array, "q bins"], second: Float[Array, "q bins"], q: Queries, p: Prepared, k: int) -> Neighbours:
    """Measures the best rows of the best bins, and certifies the result by the scores of the other rows.

    Args:
      best: packed best score of each bin.
      second: second best score of each bin.
      q: queries.
      p: database.
      k: number of results.
    """
    _, height = p.tiles
    size = rows_per_bin(p.padded_rows.shape[0])
    bins_per_tile = height // size
    scores, best_bins, bound = best_and_bound(best, k + SPARE)
    first = best_bins // bins_per_tile * height + best_bins % bins_per_tile
    costs, rows = measure_candidates(first + packed_row(scores, size) * bins_per_tile, q, p, k)
    second = jnp.max(jnp.take_along_axis(second, best_bins, axis=1, mode="promise_in_bounds"), axis=1)
    error = packing_error_bound(q, p) - score_offset(q, p)
    certified = is_certified(costs[:, -1], jnp.maximum(bound, second) + error, q, p)

    def measure_whole_bins(state: tuple[Neighbours, Array]) -> tuple[Neighbours, Array]:
        """Measures all rows of the best bins, for some of the uncertified queries."""
        neighbours, uncertified = state
        total = uncertified.shape[0]
        (chosen,) = jnp.nonzero(uncertified, size=min(_QUERIES_AT_ONCE, total), fill_value=total)
        some, starts, best_other = jax.tree.map(lambda x: x.at[chosen].get(mode="clip"), (q, first, bound + error))
        rows = starts[:, :, None] + bins_per_tile * jnp.arange(size, dtype=jnp.int32)[None, None, :]
        costs, rows = measure_candidates(rows.reshape(chosen.shape[0], -1), some, p, k)
        results = Neighbours(costs, rows, is_certified(costs[:, -1], best_other, some, p))
        merged = (old.at[chosen].set(new, mode="drop") for old, new in zip(neighbours, results, strict=True))
        return Neighbours(*merged), uncertified.at[chosen].set(False, mode="drop")

    # A cost that is not finite cannot be certified: there are fewer than k rows without NaN, or the query has NaN.
    state = Neighbours(costs, rows, certified), ~certified & jnp.isfinite(costs[:, -1])
    return lax.while_loop(lambda state: jnp.any(state[1]), measure_whole_bins, state)[0]
