"""Exact parts of a search: its records, the distances of candidate rows, and the search that compares every pair.

The cost of a row is what searches minimise: its distance, or minus its inner product for "dot".
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
from modeldiff_jax.kernels import pairwise
from modeldiff_jax.kernels.inputs import ArrayInput
from modeldiff_jax.kernels.largest import argtop_k
from modeldiff_jax.kernels.paired import METRICS as PAIRED
from modeldiff_jax.kernels.prepared import BY_PRODUCT, Prepared, direction, prepare
from modeldiff_jax.kernels.vectors import power_of_two


class Queries(NamedTuple):
    """Queries and their keys.

    Attributes:
      vectors: the queries themselves.
      keys: like those of rows, divided by `scale` so that no entry is larger than about 1.
      scale: powers of two.
      excluded: row to leave out of each query's result (itself, in a self-join), or -1.
    """

    vectors: Float[Array, "q c"]
    keys: Float[Array, "q c"]
    scale: Float[Array, " q"]
    excluded: Int[Array, " q"]


class Neighbours(NamedTuple):
    """Nearest rows of each query, nearest first, and whether they are certified to be the exact result."""

    costs: Float[Array, "q k"]
    rows: Int[Array, "q k"]
    certified: Bool[Array, " q"]


def as_prepared(database: ArrayInput | Prepared, metric: str | None, where: str) -> Prepared:
    """Returns the database, prepared if it is not yet.

    Raises:
      InvalidInputError: `metric` is not that of the prepared database.
    """
    if not isinstance(database, Prepared):
        return prepare(database, metric or "cosine")
    if metric not in (None, database.metric):
        raise InvalidInputError(
            "`metric` is that of the prepared database", got=f"{metric}, {database.metric}", where=where
        )
    return database


@partial(jax.jit, static_argnames="metric")
def to_values(costs: Float[Array, "*n"], metric: str) -> Float[Array, "*n"]:
    """Converts costs to the values that searches return: similarities for cosine and dot, else distances."""
    return 1 - costs if metric == "cosine" else -costs if metric == "dot" else costs


def prepare_queries(vectors: Float[Array, "q c"], p: Prepared, excluded: Int[Array, " q"] | None = None) -> Queries:
    """Computes the keys of queries. A query with NaN or an infinity gets a key of zeros, which certifies nothing."""
    clean = jnp.where(jnp.all(jnp.isfinite(vectors), axis=1, keepdims=True), vectors, 0)
    scale = jnp.ones(vectors.shape[0], jnp.float32)
    if p.metric in ("cosine", "correlation"):
        keys = direction(clean, p.metric)
    elif p.metric in BY_PRODUCT:
        keys = (clean - p.centre[None, :]) * (1 / p.scale)
        keys = jnp.where(jnp.isfinite(keys), keys, 0)  # too far from the database to be certified
        scale = power_of_two(keys)[:, 0]
        scale = scale if p.metric == "dot" else jnp.maximum(1, scale)
        keys = keys * (1 / scale)[:, None]
    else:
        keys = clean
    if excluded is None:
        excluded = jnp.full(vectors.shape[0], -1, jnp.int32)
    return Queries(vectors, keys, scale, excluded)


def pair_cost(metric: str) -> Callable[[Array, Array], Array]:
    """Returns the function of two vectors that defines the cost."""
    return PAIRED[metric] if metric in PAIRED else lambda a, b: -jnp.sum(a * b)


def sort_by_cost(costs: Array, rows: Array, excluded: Array, n: Array | int, k: int) -> tuple[Array, Array]:
    """Sorts candidates by cost, ties by row, NaN after all, and keeps the first `k`.

    Invalid candidates, a query's excluded row and rows from `n` on, come last, as row `n` at infinite cost.
    """
    invalid = (rows == excluded[:, None]) | (rows >= n)
    rank = jnp.where(invalid | jnp.isnan(costs), jnp.inf, jnp.where(costs == 0, 0.0, costs))
    rows, costs = jnp.where(invalid, n, rows), jnp.where(invalid, jnp.inf, costs)
    _, rows, costs = lax.sort((rank, rows, costs), dimension=1, num_keys=2)
    return costs[:, :k], rows[:, :k]


def measure_candidates(rows: Int[Array, "q some"], q: Queries, p: Prepared, k: int) -> tuple[Array, Array]:
    """Computes the costs of candidate rows by `paired`'s formulas and keeps the best `k`."""
    vectors = p.padded_rows[jnp.minimum(rows, p.padded_rows.shape[0] - 1)]
    costs = jax.vmap(jax.vmap(pair_cost(p.metric), (None, 0)))(q.vectors, vectors)
    return sort_by_cost(costs, rows, q.excluded, p.n, k)


def search_all_rows(q: Queries, p: Prepared, k: int) -> Neighbours:
    """Compares every query with every row, one query after another: the definition."""
    total, width = p.padded_rows.shape
    cost = pair_cost(p.metric)

    def search_one(query: tuple[Array, Array]) -> tuple[Array, Array]:
        vector, excluded = query
        costs = lax.map(lambda row: cost(vector, row), p.padded_rows, batch_size=max(1, min(total, 2**15 // width)))
        costs, rows = _best(costs[None], excluded[None], p, k)
        return costs[0], rows[0]

    costs, rows = lax.map(search_one, (q.vectors, q.excluded))
    return Neighbours(costs, rows, jnp.ones(q.excluded.shape, bool))


def search_tiles(q: Queries, p: Prepared, k: int) -> Neighbours:
    """Compares every query with every row in tiles, which is faster for many queries but stores all of their costs."""
    costs, rows = _best(pairwise.xla(q.vectors, p.padded_rows, p.metric), q.excluded, p, k)
    return Neighbours(costs, rows, jnp.ones(q.excluded.shape, bool))


def _best(costs: Float[Array, "q n"], excluded: Int[Array, " q"], p: Prepared, k: int) -> tuple[Array, Array]:
    """Returns the `k` smallest costs of all rows, and the rows."""
    numbers = jnp.arange(costs.shape[1], dtype=jnp.int32)[None, :]
    unranked = (numbers == excluded[:, None]) | (numbers >= p.n) | jnp.isnan(costs)
    rows = argtop_k(-jnp.where(unranked, jnp.inf, costs), min(k + 1, costs.shape[1]))
    costs = jnp.take_along_axis(costs, rows, axis=1, mode="promise_in_bounds")
    return sort_by_cost(costs, rows, excluded, p.n, k)
