"""Derivatives of search results: those of the costs of the rows. The choice of rows has no derivative."""

from __future__ import annotations

from functools import partial

import jax
from jax import lax
from jaxtyping import Array, Float, Int

from modeldiff_jax.kernels.top_k.exact import pair_cost

_ENTRIES_AT_ONCE = 2**20
"""Entries of the vectors whose derivatives are computed at once."""


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def differentiable_costs(
    costs: Float[Array, "q k"],
    rows: Int[Array, "q k"],
    vectors: Float[Array, "q c"],
    database: Float[Array, "n c"],
    metric: str,
) -> Float[Array, "q k"]:
    """Returns `costs`, as a differentiable function of the queries and the database."""
    return costs


@differentiable_costs.defjvp
def _costs_and_tangents(metric: str, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    costs, rows, vectors, database = primals
    cost = pair_cost(metric)

    @jax.checkpoint  # computed again in the backward pass, rather than stored
    def of_query(vector: Array, rows: Array, database: Array) -> Array:
        return jax.vmap(cost, (None, 0))(vector, database[rows])

    def of_queries(vectors: Array, database: Array) -> Array:
        batch = max(1, _ENTRIES_AT_ONCE // (rows.shape[1] * vectors.shape[1]))
        return lax.map(lambda query: of_query(*query, database), (vectors, rows), batch_size=batch)

    return costs, jax.jvp(of_queries, (vectors, database), (tangents[2], tangents[3]))[1]


def pair_costs(pairs: Int[Array, "p 2"], database: Float[Array, "n c"], metric: str) -> Float[Array, " p"]:
    """Returns the costs of pairs of rows, a block of pairs at a time."""
    cost = pair_cost(metric)

    @jax.checkpoint
    def of_pair(pair: Array, database: Array) -> Array:
        return cost(database[pair[0]], database[pair[1]])

    return lax.map(lambda pair: of_pair(pair, database), pairs, batch_size=min(pairs.shape[0], 1024))
