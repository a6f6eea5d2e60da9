"""Near pairs within one set of vectors: the k nearest others of each row, or all pairs within a threshold.

Types, exactness and zero rule: as in `top_k`, whose last steps these are. No row finds itself; equal rows find each
other.

NaN rule: as in `top_k`; a row with NaN is in no pair within a threshold.

Memory: of the rows x rows scores only the largest of each eight neighbours are kept, and only while these stay below
2**28 numbers (46,000 rows), or none: beyond that rows are searched for block by block. Each product is computed once
for both of its rows in the first case, and for thresholds always.
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
from modeldiff_jax.kernels import proof, search
from modeldiff_jax.kernels.bin_maxima import biased, check
from modeldiff_jax.kernels.dispatch import run
from modeldiff_jax.kernels.glance import bin_size, two_best
from modeldiff_jax.kernels.inputs import ArrayInput
from modeldiff_jax.kernels.prepared import BIN, Prepared
from modeldiff_jax.kernels.selection import check_count


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
    """The near pairs within `x`, by number or by distance.

    Args:
      x: (N, C), or what `prepare` made of it.
      k: how many others of each row, from 1 to N - 1; or None.
      threshold: the least similarity ("cosine", "dot") or the greatest distance of a pair; or None. One of the two.
      metric: as in `prepare`; None is the prepared one, or "cosine".
      implementation: "pallas_gpu", "pallas_tpu", "xla", "reference", or None for the first that serves the call.

    Returns:
      With `k`: values (N, k) and indices (N, k) as `top_k` returns them. With `threshold`: all `Pairs`, as numpy
      arrays; their number is not known beforehand, so not under `jit`: there use `pairs_within`.

    Raises:
      InvalidInputError: not one of `k` and `threshold`, `k` out of range, a threshold that is no number, shapes.
    """
    if (k is None) == (threshold is None):
        raise InvalidInputError("One of `k` and `threshold`", got=f"k={k}, threshold={threshold}", where="self_join")
    prepared = search.as_prepared(x, metric, "self_join")
    if k is not None:
        check_count(k, prepared.rows.shape[0] - 1, "self_join")
        cost, index = run("self_join", VARIANTS, implementation, prepared, k)
        return search.as_value(cost, prepared.metric), index
    return _all_pairs(prepared, threshold)


def own_queries(p: Prepared, rows: Int[Array, " q"]) -> proof.Queries:
    """Rows of the database as queries that do not find themselves."""
    vectors = p.rows[rows]
    return proof.Queries(vectors, vectors if p.keys is None else p.keys[rows], jnp.ones(rows.shape, jnp.float32), rows)


def _row_numbers(p: Prepared) -> Int[Array, " n"]:
    return jnp.arange(p.rows.shape[0], dtype=jnp.int32)


@partial(jax.jit, static_argnames="k")
@jax.named_scope("self_join.reference")
def reference(p: Prepared, k: int) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """The definition: every row against every row."""
    found = search.all_rows(own_queries(p, _row_numbers(p)), p, k)
    return found.cost, found.rows


_KEPT = 2**28
_Four: TypeAlias = tuple[Array, Array, Array, Array]


@partial(jax.jit, static_argnames=("k", "implementation"))
def _by_bins(p: Prepared, k: int, implementation: str) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    with jax.named_scope(f"self_join.{implementation}"):
        levels = search.levels(p, k, implementation)
        n = p.rows.shape[0]
        if search.glances_first(p, k) and 4 * n * n // bin_size(n) <= _KEPT:
            first = _glances(p, k)
        else:
            first = _looks(p, k, levels[0], implementation)
        found = search.resolve(first, own_queries(p, _row_numbers(p)), levels[1:])
        return found.cost, found.rows


def _looks(p: Prepared, k: int, look: Callable[..., search.Found], implementation: str) -> search.Found:
    few = p.keys is not None and p.keys.shape[0] ** 2 // BIN <= _KEPT
    # a glance at both halves takes less time than a look at one
    shared = few and p.precision == "float32" and implementation == "xla" and not search.glances_first(p, k)
    maxima = _symmetric_maxima(p) if shared else None

    def block(rows: Array) -> search.Found:
        q = own_queries(p, rows)
        return look(q) if maxima is None else look(q, maxima=maxima[rows])

    return search.in_blocks(block, _row_numbers(p), search.block_of_queries(p, k, implementation))


def xla(p: Prepared, k: int) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """By the largest scores of bins, for rows and columns from one product."""
    return _by_bins(p, k, "xla")


def fused_by(implementation: str, p: Prepared, k: int) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """By the largest scores of bins, without writing the others."""
    check(implementation, p, p.precision)
    return _by_bins(p, k, implementation)


def _glances(p: Prepared, k: int) -> search.Found:
    """`search.glance` of all rows, from the products of each two tiles once."""
    n = p.rows.shape[0]
    count, height = p.tiles
    size = bin_size(n)
    order, one = jnp.arange(height, dtype=jnp.int32), jnp.ones(count * height, jnp.float32)
    assert p.keys is not None
    up = proof.shift(proof.Queries(p.keys, p.keys, one, jnp.arange(count * height, dtype=jnp.int32)), p)
    put, part = lax.dynamic_update_slice, partial(lax.dynamic_slice_in_dim, slice_size=height)

    def step(bins: _Four, tile: Array) -> tuple[_Four, None]:
        i, j = tile[0], tile[1]
        products, a_bias, b_bias = _tile_scores(p, i, j)
        skip = jnp.where(i == j, order, -1)
        down = two_best(products, part(up, j * height)[None, :], a_bias[:, None], i < 0, skip[None, :], 0, size)
        along = two_best(products, part(up, i * height)[:, None], b_bias[None, :], i < 0, skip[:, None], 1, size)
        per = height // size
        corners = 2 * [(i * per, j * height)] + 2 * [(i * height, j * per)]
        a, b, c, d = map(put, bins, (*down, *along), corners)
        return (a, b, c, d), None

    wide = jnp.zeros((count * height, count * height // size), jnp.float32)
    below_first, below_second, first, second = lax.scan(step, (wide.T, wide.T, wide, wide), _tile_pairs(p))[0]

    def block(t: Array) -> search.Found:
        def of(below: Array, beside: Array) -> Array:
            return jnp.maximum(part(below, t * height, axis=1).T, part(beside, t * height))

        q = own_queries(p, jnp.minimum(t * height + order, n - 1))
        return search.from_bins(of(below_first, first), of(below_second, second), q, p, k)

    found = lax.map(block, jnp.arange(count, dtype=jnp.int32))
    return search.Found(*(x.reshape(-1, *x.shape[2:])[:n] for x in found))


def _tile_pairs(p: Prepared) -> Int[Array, "pairs 2"]:
    count, _ = p.tiles
    return jnp.asarray(np.stack(np.triu_indices(count), axis=1), jnp.int32)


def _tile_scores(p: Prepared, i: Array, j: Array) -> tuple[Array, Array, Array]:
    """Products of the rows of two tiles, and the biases of each."""
    _, height = p.tiles
    assert p.keys is not None
    a, b = (lax.dynamic_slice_in_dim(p.keys, t * height, height) for t in (i, j))
    a_bias, b_bias = (lax.dynamic_slice_in_dim(p.bias, t * height, height) for t in (i, j))
    return jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST), a_bias, b_bias


def _symmetric_maxima(p: Prepared) -> Float[Array, "padded bins"]:
    """`search.bin_maxima` of all rows, from the products of each two tiles once."""
    count, height = p.tiles
    per = height // BIN
    one = jnp.ones(height, jnp.float32)

    def step(maxima: Array, tile: Array) -> tuple[Array, None]:
        i, j = tile[0], tile[1]
        products, a_bias, b_bias = _tile_scores(p, i, j)
        for_rows = biased(products, one, b_bias, p.metric)
        for_columns = biased(products.T, one, a_bias, p.metric).T
        of_rows = jnp.max(for_rows.reshape(height, BIN, per), axis=1)
        # not jnp.max, which goes down column by column on a CPU
        of_columns = reduce(jnp.maximum, [for_columns[bin * per : (bin + 1) * per] for bin in range(BIN)])
        maxima = lax.dynamic_update_slice(maxima, of_columns.T, (j * height, i * per))
        return lax.dynamic_update_slice(maxima, of_rows, (i * height, j * per)), None

    empty = jnp.zeros((count * height, count * per), jnp.float32)
    return lax.scan(step, empty, _tile_pairs(p))[0]


@partial(jax.jit, static_argnames="capacity")
@jax.named_scope("self_join.pairs_within")
def pairs_within(
    p: Prepared, cost: Float[Array, ""], capacity: int
) -> tuple[Int[Array, "capacity 2"], Float[Array, " capacity"], Int[Array, ""]]:
    """Pairs at no more than a cost, into room for so many.

    Args:
      p: the prepared rows.
      cost: the greatest distance; for "cosine" 1 - similarity, for "dot" minus the product.
      capacity: room for pairs, candidates included.

    Returns:
      Pairs (capacity, 2) with the lower row first, -1 where there is none; their costs, infinite there; and how many
      candidates there were. If that is above `capacity`, some are missing: ask again with more room.
    """
    n = p.rows.shape[0]
    if p.keys is None:
        found, count = _by_row(p, cost, capacity)
    else:
        found, count = _by_tile(p, cost, capacity)
    pair = search.pair_cost(p.metric)

    def measure(ij: Array) -> Array:
        return pair(p.rows[ij[0]], p.rows[ij[1]])

    costs = lax.map(measure, jnp.minimum(found, n - 1), batch_size=min(capacity, 1024))
    near = (found[:, 0] < n) & (costs <= cost)
    return jnp.where(near[:, None], found, -1), jnp.where(near, costs, jnp.inf), count


def _append(found: Array, count: Array, mask: Array, row: Array, column: Array) -> tuple[Array, Array]:
    """Adds the true entries of a mask of which entry (0, 0) is (row, column); all rows n are those without a pair."""
    capacity = found.shape[0]

    def some() -> Array:
        i, j = jnp.nonzero(mask, size=capacity, fill_value=-1)
        new = jnp.stack([row + i, column + j], axis=1).astype(jnp.int32)
        place = jnp.where(i >= 0, count + jnp.arange(capacity, dtype=jnp.int32), capacity)
        return found.at[place].set(new, mode="drop")

    more = jnp.sum(mask, dtype=jnp.int32)
    return lax.cond(more > 0, some, lambda: found), count + more


def _by_tile(p: Prepared, cost: Array, capacity: int) -> tuple[Array, Array]:
    n = p.rows.shape[0]
    _, height = p.tiles
    q = own_queries(p, jnp.minimum(jnp.arange(p.bias.shape[0], dtype=jnp.int32), n - 1))
    limit = proof.score_of(jnp.broadcast_to(cost, q.own.shape), q, p) - proof.rounding(q, p)
    order = jnp.arange(height, dtype=jnp.int32)

    def step(carry: tuple[Array, Array], tile: Array) -> tuple[tuple[Array, Array], None]:
        i, j = tile[0], tile[1]
        products, a_bias, b_bias = _tile_scores(p, i, j)
        least = lax.dynamic_slice_in_dim(limit, i * height, height)
        # a bias of minus infinity is a row that is none, on either side
        near = (products + b_bias[None, :] >= least[:, None]) & (a_bias > -jnp.inf)[:, None]
        near = near & (b_bias > -jnp.inf)[None, :] & ((i < j) | (order[:, None] < order[None, :]))
        return _append(*carry, near, i * height, j * height), None

    empty = jnp.full((capacity, 2), n, jnp.int32), jnp.zeros((), jnp.int32)
    return lax.scan(step, empty, _tile_pairs(p))[0]


def _by_row(p: Prepared, cost: Array, capacity: int) -> tuple[Array, Array]:
    n = p.rows.shape[0]
    pair = search.pair_cost(p.metric)

    def step(carry: tuple[Array, Array], row: Array) -> tuple[tuple[Array, Array], None]:
        costs = lax.map(partial(pair, p.rows[row]), p.rows, batch_size=max(1, min(n, 2**15 // p.rows.shape[1])))
        near = (costs <= cost) & (_row_numbers(p) > row)
        return _append(*carry, near[None, :], row, jnp.zeros((), jnp.int32)), None

    empty = jnp.full((capacity, 2), n, jnp.int32), jnp.zeros((), jnp.int32)
    return lax.scan(step, empty, _row_numbers(p))[0]


def _all_pairs(p: Prepared, threshold: float | None) -> Pairs:
    if isinstance(threshold, bool) or not isinstance(threshold, int | float | np.number) or np.isnan(threshold):
        raise InvalidInputError("`threshold` is a number", got=repr(threshold), where="self_join")
    limit = {"cosine": 1 - threshold, "dot": -threshold}.get(p.metric, threshold)
    capacity = min(1024, max(1, p.rows.shape[0] * (p.rows.shape[0] - 1) // 2))
    while True:
        found, costs, count = pairs_within(p, jnp.asarray(limit, jnp.float32), capacity)
        if int(count) <= capacity:
            break
        capacity = 1 << (int(count) - 1).bit_length()
    near = np.asarray(found)[:, 0] >= 0
    (first, second), values = np.asarray(found)[near].T, np.asarray(costs)[near]
    order = np.lexsort((second, first, values))
    return Pairs(first[order], second[order], np.asarray(search.as_value(jnp.asarray(values[order]), p.metric)))


VARIANTS: dict[str, Callable[[Prepared, int], tuple[Array, Array]]] = {
    "pallas_gpu": partial(fused_by, "pallas_gpu"),
    "pallas_tpu": partial(fused_by, "pallas_tpu"),
    "xla": xla,
    "reference": reference,
}
