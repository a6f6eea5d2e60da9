"""Exact search: the k nearest rows of a database for every query, without ever holding queries x rows in memory.

Types: as in `paired`: real numbers in, float32 arithmetic and float32 out. Products are in full float32, whatever
`jax_default_matmul_precision` says, but for the first look of a database prepared in less.

Exactness: the result is the order of `paired_distances` (for "dot", of the sum of products in float32) over all rows,
ties by index. A first look ranks all rows by inner products, the best of them are measured again by `paired`'s
formulas, so that small distances keep their digits, and the k best of those are returned if they are proven: if even
with all that rounding can do no row left out comes near. Queries without proof (near duplicates in hundreds, ties, zero
vectors, NaN) are looked at again in float32, then more widely, then against every row.

Zero rule: that of `paired`.

NaN rule: a row with NaN is last, and its value is NaN; a query with NaN finds rows 0 to k - 1, with values of NaN.

Bounds: 1 <= k <= N.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import glance as glances
from modeldiff_jax.kernels.bin_maxima import bin_maxima, check
from modeldiff_jax.kernels.dispatch import run
from modeldiff_jax.kernels.inputs import ArrayInput, as_float32, power_of_two
from modeldiff_jax.kernels.paired import METRICS as PAIRED
from modeldiff_jax.kernels.prepared import BIN, BY_PRODUCT, Prepared, prepare, unit
from modeldiff_jax.kernels.proof import Queries, coding, reach, shift, surpasses
from modeldiff_jax.kernels.selection import check_count, where_largest


def top_k(
    queries: ArrayInput,
    database: ArrayInput | Prepared,
    k: int,
    metric: str | None = None,
    *,
    implementation: str | None = None,
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """The `k` rows of `database` nearest to each query.

    Args:
      queries: (Q, C), real numbers, a vector per row.
      database: (N, C), or what `prepare` made of it.
      k: how many, from 1 to N.
      metric: as in `prepare`; None is the prepared database's, or "cosine".
      implementation: "pallas_gpu", "pallas_tpu", "xla", "reference", or None for the first that serves the call.

    Returns:
      values (Q, k), float32: for "cosine" and "dot" similarities, descending; else distances, ascending. Indices
      (Q, k), int32. Cosine similarities are ordered by their distances, which tell apart what rounds to one
      similarity. Ties, zero vectors and NaN: see the head of this file.

    Raises:
      InvalidInputError: shapes do not fit, `k` is not from 1 to N, or a name is unknown or not the prepared one.
    """
    prepared = as_prepared(database, metric, "top_k")
    vectors = as_float32(queries, "top_k: queries")
    if vectors.ndim != 2 or vectors.shape[1] != prepared.rows.shape[1]:
        raise InvalidInputError(
            "`queries` is (Q, C) and `database` is (N, C)",
            got=f"{vectors.shape} and {prepared.rows.shape}",
            where="top_k",
        )
    check_count(k, prepared.rows.shape[0], "top_k")
    cost, index = run("top_k", VARIANTS, implementation, vectors, prepared, k)
    return as_value(cost, prepared.metric), index


def as_prepared(database: ArrayInput | Prepared, metric: str | None, where: str) -> Prepared:
    """`database`, prepared if it was not."""
    if not isinstance(database, Prepared):
        return prepare(database, metric or "cosine")
    if metric not in (None, database.metric):
        raise InvalidInputError(
            "`metric` is that of the prepared database", got=f"{metric}, {database.metric}", where=where
        )
    return database


def as_value(cost: Float[Array, "*n"], metric: str) -> Float[Array, "*n"]:
    """What is returned for a cost, which is the distance, or minus the inner product."""
    return 1 - cost if metric == "cosine" else -cost if metric == "dot" else cost


class Found(NamedTuple):
    cost: Float[Array, "q k"]
    rows: Int[Array, "q k"]
    proven: Bool[Array, " q"]


def prepare_queries(vectors: Float[Array, "q c"], p: Prepared, own: Int[Array, " q"] | None = None) -> Queries:
    """The keys of queries: like those of rows, and no larger than 1, for which `size` makes up."""
    clean = jnp.where(jnp.all(jnp.isfinite(vectors), axis=1, keepdims=True), vectors, 0)
    size = jnp.ones(vectors.shape[0], jnp.float32)
    if p.metric in ("cosine", "correlation"):
        keys = unit(clean, p.metric)[0]
    elif p.metric in BY_PRODUCT:
        keys = (clean - p.centre[None, :]) * (1 / p.scale)
        keys = jnp.where(jnp.isfinite(keys), keys, 0)  # too far to be proven
        size = power_of_two(keys)[:, 0]
        size = size if p.metric == "dot" else jnp.maximum(1, size)
        keys = keys * (1 / size)[:, None]
    else:
        keys = clean
    return Queries(vectors, keys, size, jnp.full(vectors.shape[0], -1, jnp.int32) if own is None else own)


def pair_cost(metric: str) -> Callable[[Array, Array], Array]:
    return PAIRED[metric] if metric in PAIRED else lambda a, b: -jnp.sum(a * b)


def ordered(cost: Array, index: Array, own: Array, n: int, k: int) -> tuple[Array, Array]:
    """The `k` least costs, ties by index, NaN after all, and last of all the query's own row and padding."""
    out = (index == own[:, None]) | (index >= n)
    rank = jnp.where(out | jnp.isnan(cost), jnp.inf, jnp.where(cost == 0, 0.0, cost))
    _, place, cost = lax.sort((rank, jnp.where(out, n, index), cost), dimension=1, num_keys=2)
    return cost[:, :k], place[:, :k]


def all_rows(q: Queries, p: Prepared, k: int) -> Found:
    """Every pair by `paired`'s formula: the definition."""
    n, width = p.rows.shape
    pair = pair_cost(p.metric)

    def one(query: tuple[Array, Array]) -> tuple[Array, Array]:
        vector, own = query
        cost = lax.map(lambda row: pair(vector, row), p.rows, batch_size=max(1, min(n, 2**15 // width)))
        rank = jnp.where((jnp.arange(n, dtype=jnp.int32) == own) | jnp.isnan(cost), jnp.inf, cost)
        best = where_largest(-rank[None], min(k + 1, n))[0]
        cost, index = ordered(cost[best][None], best[None], own[None], n, k)
        return cost[0], index[0]

    cost, index = lax.map(one, (q.vectors, q.own))
    return Found(cost, index, jnp.ones(q.own.shape, bool))


# A row's best few beyond k, whose only use is to be left behind by the k-th by more than rounding can do.
_SPARE = 5


def look(
    q: Queries,
    p: Prepared,
    k: int,
    precision: str,
    wide: int,
    maxima: Array | None = None,
    implementation: str = "xla",
) -> Found:
    """The best `wide` bins, of these the best few rows, of these the best `k`; and is that proven?"""
    _, height = p.tiles
    per = height // BIN
    assert p.keys is not None
    if maxima is None:
        maxima = bin_maxima(q.keys, 1 / q.size, p, precision, implementation=implementation)
    _, bins, bound = _best(maxima, wide)
    rows = (bins // per * height + bins % per)[:, :, None] + per * jnp.arange(BIN, dtype=jnp.int32)[None, None, :]
    rows = rows.reshape(rows.shape[0], -1)
    products = jnp.sum(p.keys[rows] * q.keys[:, None, :], axis=2)
    scored = jnp.where(rows == q.own[:, None], -jnp.inf, products + (1 / q.size)[:, None] * p.bias[rows])
    _, place, second = _best(lax.optimization_barrier(scored), k + _SPARE)
    index = jnp.take_along_axis(rows, place, axis=1)
    cost, index = measured(index, q, p, k)
    left_out = jnp.maximum(bound + coding(q, p, precision), second)
    return Found(cost, index, surpasses(cost[:, -1], left_out, q, p))


def glance(q: Queries, p: Prepared, k: int) -> Found:
    """The best row of each of the best bins, proven if no other row of these bins comes near either."""
    count, height = p.tiles
    size = glances.bin_size(p.rows.shape[0])
    per, total = height // size, q.own.shape[0]
    assert p.keys is not None
    keys, across, up = p.keys, q.keys.T, shift(q, p)[None, :]

    def tile(bins: tuple[Array, Array], t: Array) -> tuple[tuple[Array, Array], None]:
        part = partial(lax.dynamic_slice_in_dim, start_index=t * height, slice_size=height)
        products = jnp.matmul(part(keys), across, precision=lax.Precision.HIGHEST)
        bias = part(p.bias)[:, None] * (1 / q.size)[None, :]
        found = glances.two_best(products, up, bias, t < 0, (q.own - t * height)[None, :], 0, size)
        return (put(bins[0], found[0], (t * per, 0)), put(bins[1], found[1], (t * per, 0))), None

    put = lax.dynamic_update_slice
    empty = jnp.zeros((count * per, total), jnp.float32)
    first, second = lax.scan(tile, (empty, empty), jnp.arange(count, dtype=jnp.int32))[0]
    return from_bins(first.T, second.T, q, p, k)


def from_bins(first: Float[Array, "q bins"], second: Float[Array, "q bins"], q: Queries, p: Prepared, k: int) -> Found:
    """What the two best of each bin find and prove."""
    n = p.rows.shape[0]
    _, height = p.tiles
    size = glances.bin_size(n)
    per = height // size
    best, bins, bound = _best(first, k + _SPARE)
    index = bins // per * height + glances.place(best, size) * per + bins % per
    cost, index = measured(index, q, p, k)
    second = jnp.max(jnp.take_along_axis(second, bins, axis=1, mode="promise_in_bounds"), axis=1)
    less = reach(q, p) * (glances.slack(n) * 2.0**-24) - shift(q, p)
    found = Found(cost, index, surpasses(cost[:, -1], jnp.maximum(bound, second) + less, q, p))

    def every_row(state: tuple[Found, Array]) -> tuple[Found, Array]:
        """Of the same bins, for some queries whose best rows share a bin."""
        found, waiting = state
        (at,) = jnp.nonzero(waiting, size=min(_ALONG[1], waiting.shape[0]), fill_value=waiting.shape[0])
        some, of, left_out = jax.tree.map(lambda x: x.at[at].get(mode="clip"), (q, bins, bound + less))
        rows = (of // per * height + of % per)[:, :, None] + per * jnp.arange(size, dtype=jnp.int32)[None, None, :]
        cost, index = measured(rows.reshape(at.shape[0], -1), some, p, k)
        again = Found(cost, index, surpasses(cost[:, -1], left_out, some, p))
        found = Found(*(old.at[at].set(new, mode="drop") for old, new in zip(found, again, strict=True)))
        return found, waiting.at[at].set(False, mode="drop")

    return lax.while_loop(lambda state: jnp.any(state[1]), every_row, (found, ~found.proven))[0]


def measured(index: Int[Array, "q some"], q: Queries, p: Prepared, k: int) -> tuple[Array, Array]:
    """The `k` best of some rows, by `paired`'s formulas."""
    rows = p.rows[jnp.minimum(index, p.rows.shape[0] - 1)]
    cost = jax.vmap(jax.vmap(pair_cost(p.metric), (None, 0)))(q.vectors, rows)
    return ordered(cost, index, q.own, p.rows.shape[0], k)


def _best(x: Float[Array, "b n"], count: int) -> tuple[Array, Array, Array]:
    """The `count` largest, where they are, and the largest left out."""
    if count >= x.shape[1]:
        return (
            x,
            jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32)[None, :], x.shape),
            jnp.full(x.shape[0], -jnp.inf),
        )
    index = where_largest(x, count + 1)
    values = jnp.take_along_axis(x, index, axis=1, mode="promise_in_bounds")
    return values[:, :-1], index[:, :-1], values[:, -1]


_ALONG = 64, 16
"""Queries without proof are taken up this many at a time, at first and later."""


def glances_first(p: Prepared, k: int) -> bool:
    """Is a glance what this device does first? It needs bins to spare."""
    if p.keys is None or p.precision != "float32" or jax.default_backend() != "cpu":
        return False
    return 8 * (k + _SPARE) <= p.keys.shape[0] // glances.bin_size(p.rows.shape[0])


def levels(p: Prepared, k: int, implementation: str = "xla") -> list[Callable[[Queries], Found]]:
    every = partial(all_rows, p=p, k=k)
    if p.keys is None:
        return [every]
    steps: list[Callable[[Queries], Found]] = [
        partial(look, p=p, k=k, precision=p.precision, wide=_wide(k, p.precision), implementation=implementation)
    ]
    if glances_first(p, k):
        steps.insert(0, partial(glance, p=p, k=k))
    if 4 * (8 * k + 128) < p.keys.shape[0] // BIN:
        steps.append(partial(look, p=p, k=k, precision="float32", wide=8 * k + 128))
    return [*steps, every]


def resolve(first: Found, q: Queries, levels: list[Callable[[Queries], Found]], along: int = _ALONG[0]) -> Found:
    """`first`, with what it has not proven taken from the next level."""
    if not levels:
        return first
    total = q.own.shape[0]

    def step(found: Found) -> Found:
        (rows,) = jnp.nonzero(~found.proven, size=min(along, total), fill_value=total)
        some = Queries(*(x.at[rows].get(mode="clip") for x in q))
        again = resolve(levels[0](some), some, levels[1:], _ALONG[1])
        again = again._replace(proven=jnp.ones_like(again.proven))
        return Found(*(old.at[rows].set(new, mode="drop") for old, new in zip(found, again, strict=True)))

    return lax.while_loop(lambda found: jnp.any(~found.proven), step, first)


def block_of_queries(p: Prepared, k: int, implementation: str = "xla") -> int:
    """How many queries to take at once: their bins, or the candidates out of these, are so many numbers at most."""
    if p.keys is None:
        return 1024
    if glances_first(p, k):
        return max(1, min(256, 2**28 // p.keys.shape[0]))
    bins = p.keys.shape[0] // BIN
    wide = min(bins, _wide(k, p.precision))
    room = 2**25 if implementation == "xla" else 2**28  # an accelerator is idle with few
    return max(1, min(1024, room // max(bins, wide * BIN * p.rows.shape[1])))


def _wide(k: int, precision: str) -> int:
    """How many bins the first look keeps."""
    return k + _SPARE if precision == "float32" else 3 * k + 32


def in_blocks(function: Callable[[Array], Found], queries: Int[Array, " q"], size: int) -> Found:
    """`function` over nearly equal blocks of queries, one after the other."""
    total = queries.shape[0]
    blocks = max(1, -(-total // size))
    if blocks == 1:
        return function(queries)
    each = -(-total // blocks)
    results = lax.map(function, jnp.pad(queries, (0, blocks * each - total), mode="edge").reshape(blocks, each))
    return Found(*(x.reshape(blocks * each, *x.shape[2:])[:total] for x in results))


@partial(jax.jit, static_argnames="k")
@jax.named_scope("top_k.reference")
def reference(vectors: Float[Array, "q c"], p: Prepared, k: int) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """The definition: every query against every row."""
    found = all_rows(prepare_queries(vectors, p), p, k)
    return found.cost, found.rows


def found_by(
    vectors: Float[Array, "q c"],
    p: Prepared,
    k: int,
    own: Int[Array, " q"] | None = None,
    implementation: str = "xla",
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """Costs and indices of the `k` nearest rows but for each query's own, if it has one."""
    steps = levels(p, k, implementation)
    if vectors.shape[0] == 0:
        return jnp.zeros((0, k), jnp.float32), jnp.zeros((0, k), jnp.int32)

    if vectors.shape[0] == 1:  # twice: XLA fuses the product of a single one with what follows, at ten times the time
        cost, index = found_by(
            jnp.repeat(vectors, 2, 0), p, k, None if own is None else jnp.repeat(own, 2), implementation
        )
        return cost[:1], index[:1]

    q = prepare_queries(vectors, p, own)

    def block(numbers: Array) -> Found:
        return steps[0](Queries(*(x[numbers] for x in q)))

    first = in_blocks(block, jnp.arange(vectors.shape[0], dtype=jnp.int32), block_of_queries(p, k, implementation))
    found = resolve(first, q, steps[1:])
    return found.cost, found.rows


@partial(jax.jit, static_argnames="k")
@jax.named_scope("top_k.xla")
def xla(vectors: Float[Array, "q c"], p: Prepared, k: int) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """By bins of inner products, and what these do not prove by more."""
    return found_by(vectors, p, k)


@partial(jax.jit, static_argnames=("k", "implementation"))
def _fused(vectors: Array, p: Prepared, k: int, implementation: str) -> tuple[Array, Array]:
    with jax.named_scope(f"top_k.{implementation}"):
        return found_by(vectors, p, k, implementation=implementation)


def fused_by(implementation: str, vectors: Array, p: Prepared, k: int) -> tuple[Array, Array]:
    """As `xla`, but for the first look, which never writes a score."""
    check(implementation, p, p.precision)
    return _fused(vectors, p, k, implementation)


VARIANTS: dict[str, Callable[[Array, Prepared, int], tuple[Array, Array]]] = {
    "pallas_gpu": partial(fused_by, "pallas_gpu"),
    "pallas_tpu": partial(fused_by, "pallas_tpu"),
    "xla": xla,
    "reference": reference,
}
