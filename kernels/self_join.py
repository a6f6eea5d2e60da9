"""Near pairs within one set of vectors: the k nearest other rows of each row, or all pairs within a threshold.

Types, exactness, zero rule and compilation: as in `top_k`, whose stages this uses. No row finds itself; equal rows find
each other.

NaN rule: as in `top_k`; a row with NaN is in no pair within a threshold.

Gradients: with `k`, values are differentiable in the rows, as in `top_k`. With `threshold` they are numpy arrays, which
have none; `pairs_within` has them.

Memory: only the largest of every eight of the rows x rows scores is stored, and only up to 2**28 numbers (46,000 rows);
with more rows, neighbours are searched for block by block. In the first case, and always for thresholds, each product
is computed once for both of its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.bin_maxima import biased, check
from modeldiff_jax.kernels.buckets import count_bucket
from modeldiff_jax.kernels.dispatch import run
from modeldiff_jax.kernels.inputs import ArrayInput
from modeldiff_jax.kernels.largest import check_count
from modeldiff_jax.kernels.prepared import BIN, Prepared
from modeldiff_jax.kernels.top_k import is_traced, top2_filter, trimmed, without_derivatives
from modeldiff_jax.kernels.top_k.cascade import (
    cascade,
    is_known,
    map_in_blocks,
    query_block_size,
    run_cascade,
    uses_top2_filter,
)
from modeldiff_jax.kernels.top_k.certificate import error_bound, score_of
from modeldiff_jax.kernels.top_k.derivatives import pair_costs
from modeldiff_jax.kernels.top_k.exact import (
    Neighbours,
    Queries,
    as_prepared,
    pair_cost,
    search_all_rows,
    to_values,
)


class Pairs(NamedTuple):
    """Pairs of rows, `first` below `second`, nearest first, ties by the two indices."""

    first: Int[np.ndarray, " p"]
    second: Int[np.ndarray, " p"]
    values: Float[np.ndarray, " p"]


def self_join(
    x: ArrayInput | Prepared,
    k: int | None = None,
    threshold: float | None = None,
    metric: str | None = None,
    *,
    implementation: str | None = None,
) -> tuple[Array, Array] | Pairs:
    """Returns the near pairs within `x`, by number or by distance.

    Args:
      x: (N, C), or the result of `prepare`.
      k: number of other rows per row, from 1 to N - 1; or None.
      threshold: least similarity ("cosine", "dot") or greatest distance of a pair; or None. Exactly one of the two.
      metric: as in `prepare`; None for that of the prepared rows, or "cosine".
      implementation: "pallas_gpu", "pallas_tpu", "xla", "reference", or None for the first that serves the call.

    Returns:
      With `k`: values (N, k) and indices (N, k) as `top_k` returns them. With `threshold`: all `Pairs`, as numpy
      arrays. Their number depends on the data, so this does not work under `jit`; `pairs_within` does.

    Raises:
      InvalidInputError: not exactly one of `k` and `threshold`, `k` out of range, a threshold that is not a number, or
        shapes.
    """
    if (k is None) == (threshold is None):
        raise InvalidInputError("One of `k` and `threshold`", got=f"k={k}, threshold={threshold}", where="self_join")
    prepared = as_prepared(x, metric, "self_join")
    if k is not None:
        check_count(k, prepared.count - 1, "self_join")
        costs, rows = nearest_others(prepared, k, implementation)
        return to_values(costs, prepared.metric), rows
    return _all_pairs(prepared, threshold)


def nearest_others(
    prepared: Prepared, k: int, implementation: str | None = None
) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """Returns costs and indices of the `k` nearest other rows of each row, without checking the arguments."""
    p = without_derivatives(prepared.with_padding_as_rows())
    bucket = k if is_traced(p) else min(count_bucket(k), prepared.count - 1)
    costs, rows = run("self_join", VARIANTS, implementation, p, bucket)
    return trimmed(costs, rows, prepared.rows, prepared.padded_rows, k, prepared.metric)


def rows_as_queries(p: Prepared, rows: Int[Array, " q"]) -> Queries:
    """Makes queries of rows of the database, each excluded from its own result."""
    vectors = p.padded_rows[rows]
    keys = vectors if p.keys is None else p.keys[rows]
    return Queries(vectors, keys, jnp.ones(rows.shape, jnp.float32), rows)


def _row_numbers(p: Prepared) -> Int[Array, " n"]:
    return jnp.arange(p.padded_rows.shape[0], dtype=jnp.int32)


@partial(jax.jit, static_argnames="k")
@jax.named_scope("self_join.reference")
def reference(p: Prepared, k: int) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """Compares every row with every row: the definition."""
    neighbours = search_all_rows(rows_as_queries(p, _row_numbers(p)), p, k)
    return neighbours.costs, neighbours.rows


def xla(p: Prepared, k: int) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """Filters by bins of inner products, each computed once for both of its rows."""
    return _by_cascade(p, k, "xla")


def _fused(implementation: str, p: Prepared, k: int) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """Filters by bin maxima, without writing any other score."""
    check(implementation, p, p.precision)
    return _by_cascade(p, k, implementation)


pallas_gpu = partial(_fused, "pallas_gpu")
pallas_tpu = partial(_fused, "pallas_tpu")

VARIANTS: dict[str, Callable[[Prepared, int], tuple[Array, Array]]] = {
    "pallas_gpu": pallas_gpu,
    "pallas_tpu": pallas_tpu,
    "xla": xla,
    "reference": reference,
}


# The k nearest others

_MOST_STORED = 2**28
"""Most scores that are stored at once."""
_Filtered: TypeAlias = tuple[Array, Array, Array, Array]


def _by_cascade(p: Prepared, k: int, implementation: str) -> tuple[Array, Array]:
    """Runs the first stage, and outside `jit` the later ones only for uncertified rows, as `search_cascade` does."""
    first, all_certified = _first_stage(p, k, implementation)
    if not is_known(all_certified):
        first = _later_stages(first, p, k, implementation)
    return first.costs, first.rows


@partial(jax.jit, static_argnames=("k", "implementation"))
def _first_stage(p: Prepared, k: int, implementation: str) -> tuple[Neighbours, Array]:
    """Searches for the neighbours of all rows; those of padding count as certified, since they are not returned."""
    with jax.named_scope(f"self_join.{implementation}"):
        n = p.padded_rows.shape[0]
        if uses_top2_filter(p, k) and 4 * n * n // top2_filter.rows_per_bin(n) <= _MOST_STORED:
            neighbours = _top2_filter_and_refine(p, k)
        else:
            neighbours = _bin_filter_and_refine(p, k, implementation)
        certified = neighbours.certified | (_row_numbers(p) >= p.n)
        return neighbours._replace(certified=certified), jnp.all(certified)


@partial(jax.jit, static_argnames=("k", "implementation"))
def _later_stages(first: Neighbours, p: Prepared, k: int, implementation: str) -> Neighbours:
    with jax.named_scope(f"self_join.{implementation}"):
        return run_cascade(first, rows_as_queries(p, _row_numbers(p)), cascade(p, k, implementation)[1:])


def _bin_filter_and_refine(p: Prepared, k: int, implementation: str) -> Neighbours:
    stage = cascade(p, k, implementation)[0]
    few = p.keys is not None and p.keys.shape[0] ** 2 // BIN <= _MOST_STORED
    # The top-2 filter, if it is the stage, is faster even without sharing products between rows.
    shared = few and p.precision == "float32" and implementation == "xla" and not uses_top2_filter(p, k)
    maxima = _symmetric_maxima(p) if shared else None

    def search_block(rows: Array) -> Neighbours:
        q = rows_as_queries(p, rows)
        return stage(q) if maxima is None else stage(q, maxima=maxima[rows])

    return map_in_blocks(search_block, _row_numbers(p), query_block_size(p, k, implementation))


def _top2_filter_and_refine(p: Prepared, k: int) -> Neighbours:
    """Runs the top-2 filter for all rows, with the products of each two tiles computed once."""
    n = p.padded_rows.shape[0]
    tiles, height = p.tiles
    size = top2_filter.rows_per_bin(n)
    bins, padded = height // size, tiles * height
    order, ones = jnp.arange(height, dtype=jnp.int32), jnp.ones(padded, jnp.float32)
    assert p.keys is not None
    offset = top2_filter.score_offset(Queries(p.keys, p.keys, ones, jnp.arange(padded, dtype=jnp.int32)), p)

    def tile_of(x: Array, tile: Array, axis: int = 0) -> Array:
        return lax.dynamic_slice_in_dim(x, tile * height, height, axis)

    def filter_tiles(state: _Filtered, pair: Array) -> tuple[_Filtered, None]:
        i, j = pair[0], pair[1]
        products, bias_i, bias_j = _tile_scores(p, i, j)
        never, self_row = i < 0, jnp.where(i == j, order, -1)
        by_column = top2_filter.best_two(
            products, tile_of(offset, j)[None, :], bias_i[:, None], never, self_row[None, :], 0, size
        )
        by_row = top2_filter.best_two(
            products, tile_of(offset, i)[:, None], bias_j[None, :], never, self_row[:, None], 1, size
        )
        corners = 2 * [(i * bins, j * height)] + 2 * [(i * height, j * bins)]
        a, b, c, d = map(lax.dynamic_update_slice, state, (*by_column, *by_row), corners)
        return (a, b, c, d), None

    # Tile pairs are (i, j) with i <= j. For a row of tile t, bins of tiles i < t are filled as columns of pairs (i, t),
    # those of tiles j >= t as rows of a pair (t, j).
    empty = jnp.zeros((padded, padded // size), jnp.float32)
    filled = lax.scan(filter_tiles, (empty.T, empty.T, empty, empty), _tile_pairs(p))[0]
    best_by_column, second_by_column, best_by_row, second_by_row = filled

    def refine_tile(tile: Array) -> Neighbours:
        def joined(by_column: Array, by_row: Array) -> Array:
            return jnp.maximum(tile_of(by_column, tile, 1).T, tile_of(by_row, tile))

        q = rows_as_queries(p, jnp.minimum(tile * height + order, n - 1))
        return top2_filter.refine(joined(best_by_column, best_by_row), joined(second_by_column, second_by_row), q, p, k)

    neighbours = lax.map(refine_tile, jnp.arange(tiles, dtype=jnp.int32))
    return Neighbours(*(x.reshape(-1, *x.shape[2:])[:n] for x in neighbours))


def _tile_pairs(p: Prepared) -> Int[Array, "pairs 2"]:
    tiles, _ = p.tiles
    return jnp.asarray(np.stack(np.triu_indices(tiles), axis=1), jnp.int32)


def _tile_scores(p: Prepared, i: Array, j: Array) -> tuple[Array, Array, Array]:
    """Returns the products of the rows of two tiles, and the biases of each."""
    _, height = p.tiles
    assert p.keys is not None
    a, b = (lax.dynamic_slice_in_dim(p.keys, tile * height, height) for tile in (i, j))
    a_bias, b_bias = (lax.dynamic_slice_in_dim(p.bias, tile * height, height) for tile in (i, j))
    return jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST), a_bias, b_bias


def _symmetric_maxima(p: Prepared) -> Float[Array, "padded bins"]:
    """Computes `bin_maxima` of all rows, with the products of each two tiles computed once."""
    tiles, height = p.tiles
    bins = height // BIN
    ones = jnp.ones(height, jnp.float32)

    def step(maxima: Array, pair: Array) -> tuple[Array, None]:
        i, j = pair[0], pair[1]
        products, a_bias, b_bias = _tile_scores(p, i, j)
        for_rows = biased(products, ones, b_bias, p.metric)
        for_columns = biased(products.T, ones, a_bias, p.metric).T
        by_row = jnp.max(for_rows.reshape(height, BIN, bins), axis=1)
        # not jnp.max, which on a CPU reduces one column after another
        by_column = reduce(jnp.maximum, [for_columns[part * bins : (part + 1) * bins] for part in range(BIN)])
        maxima = lax.dynamic_update_slice(maxima, by_column.T, (j * height, i * bins))
        return lax.dynamic_update_slice(maxima, by_row, (i * height, j * bins)), None

    empty = jnp.zeros((tiles * height, tiles * bins), jnp.float32)
    return lax.scan(step, empty, _tile_pairs(p))[0]


# Pairs within a threshold

_FIRST_CAPACITY = 1024


@partial(jax.jit, static_argnames="capacity")
@jax.named_scope("self_join.pairs_within")
def pairs_within(
    p: Prepared, cost: Float[Array, ""], capacity: int
) -> tuple[Int[Array, "capacity 2"], Float[Array, " capacity"], Int[Array, ""]]:
    """Returns the pairs at no more than a cost, in arrays of fixed size.

    Args:
      p: prepared rows.
      cost: greatest distance; 1 - similarity for "cosine", minus the product for "dot".
      capacity: largest number of candidate pairs that can be returned.

    Returns:
      pairs (capacity, 2), the lower row first, -1 in unused entries; costs (capacity,), infinite in these; and the
      number of candidates. If it exceeds `capacity`, pairs are missing: call again with a larger capacity. Costs are
      differentiable in the rows.
    """
    n = p.padded_rows.shape[0]
    constant = lax.stop_gradient(p)
    pairs, count = (_pairs_by_row if p.keys is None else _pairs_by_tile)(constant, lax.stop_gradient(cost), capacity)
    costs = pair_costs(jnp.minimum(pairs, n - 1), p.padded_rows, p.metric)
    near = (pairs[:, 0] < n) & (costs <= cost)
    return jnp.where(near[:, None], pairs, -1), jnp.where(near, costs, jnp.inf), count


def _append(pairs: Array, count: Array, mask: Array, row: Array, column: Array) -> tuple[Array, Array]:
    """Appends the true entries of a mask, whose entry (0, 0) is the pair (row, column), up to the capacity."""
    capacity = pairs.shape[0]

    def append() -> Array:
        i, j = (x.astype(jnp.int32) for x in jnp.nonzero(mask, size=capacity, fill_value=-1))
        new = jnp.stack([row + i, column + j], axis=1)
        position = jnp.where(i >= 0, count + jnp.arange(capacity, dtype=jnp.int32), capacity)
        return pairs.at[position].set(new, mode="drop")

    more = jnp.sum(mask, dtype=jnp.int32)
    return lax.cond(more > 0, append, lambda: pairs), count + more


def _no_pairs(n: int, capacity: int) -> tuple[Array, Array]:
    return jnp.full((capacity, 2), n, jnp.int32), jnp.zeros((), jnp.int32)


def _pairs_by_tile(p: Prepared, cost: Array, capacity: int) -> tuple[Array, Array]:
    """Returns the candidate pairs, whose scores do not rule out this cost, and their number."""
    n = p.padded_rows.shape[0]
    _, height = p.tiles
    q = rows_as_queries(p, jnp.minimum(jnp.arange(p.bias.shape[0], dtype=jnp.int32), n - 1))
    least_score = score_of(jnp.broadcast_to(cost, q.excluded.shape), q, p) - error_bound(q, p)
    order = jnp.arange(height, dtype=jnp.int32)

    def step(state: tuple[Array, Array], pair: Array) -> tuple[tuple[Array, Array], None]:
        i, j = pair[0], pair[1]
        products, a_bias, b_bias = _tile_scores(p, i, j)
        least = lax.dynamic_slice_in_dim(least_score, i * height, height)
        near = products + b_bias[None, :] >= least[:, None]
        rows = (a_bias > -jnp.inf)[:, None] & (b_bias > -jnp.inf)[None, :]  # neither padding nor NaN
        near = near & rows & ((i < j) | (order[:, None] < order[None, :]))
        return _append(*state, near, i * height, j * height), None

    return lax.scan(step, _no_pairs(n, capacity), _tile_pairs(p))[0]


def _pairs_by_row(p: Prepared, cost: Array, capacity: int) -> tuple[Array, Array]:
    """Returns all pairs within a cost, for metrics without keys, and their number."""
    n, width = p.padded_rows.shape
    distance = pair_cost(p.metric)

    def step(state: tuple[Array, Array], row: Array) -> tuple[tuple[Array, Array], None]:
        vector = p.padded_rows[row]
        costs = lax.map(partial(distance, vector), p.padded_rows, batch_size=max(1, min(n, 2**15 // width)))
        near = (costs <= cost) & (_row_numbers(p) > row) & (_row_numbers(p) < p.n)
        return _append(*state, near[None, :], row, jnp.zeros((), jnp.int32)), None

    return lax.scan(step, _no_pairs(n, capacity), _row_numbers(p))[0]


def _all_pairs(prepared: Prepared, threshold: float | None) -> Pairs:
    if isinstance(threshold, bool) or not isinstance(threshold, int | float | np.number) or np.isnan(threshold):
        raise InvalidInputError("`threshold` is a number", got=repr(threshold), where="self_join")
    limit = {"cosine": 1 - threshold, "dot": -threshold}.get(prepared.metric, threshold)
    p, cost = prepared.with_padding_as_rows(), jax.device_put(np.float32(limit))
    capacity = _FIRST_CAPACITY
    while True:
        pairs, costs, count = (np.asarray(x) for x in pairs_within(p, cost, capacity))
        if count <= capacity:
            break
        capacity = 1 << (int(count) - 1).bit_length()
    near = pairs[:, 0] >= 0
    (first, second), costs = pairs[near].T, costs[near]
    order = np.lexsort((second, first, costs))
    values = np.asarray(to_values(jax.device_put(costs[order]), prepared.metric))
    return Pairs(first[order], second[order], values)
