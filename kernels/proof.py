"""When is a search's result proven? Bounds on scores, on their rounding, and on what low precision loses."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from modeldiff_jax.kernels.inputs import TINY
from modeldiff_jax.kernels.prepared import Prepared, encode


class Queries(NamedTuple):
    """Queries beside their keys; `own` is the row that is not to be found, or -1."""

    vectors: Float[Array, "q c"]
    keys: Float[Array, "q c"]
    size: Float[Array, " q"]
    own: Int[Array, " q"]


def surpasses(cost: Float[Array, " q"], left_out: Float[Array, " q"], q: Queries, p: Prepared) -> Bool[Array, " q"]:
    """Is a row at this cost nearer than any whose score was computed to be no more than `left_out`?"""
    slack = rounding(q, p)
    # without slack there is nothing to tell rows apart by: a query of zeros, say
    return (slack > 0) & jnp.isfinite(cost) & (score_of(cost, q, p) > left_out + slack)


def shift(q: Queries, p: Prepared) -> Float[Array, " q"]:
    """What makes all scores of a query positive, by as much again."""
    return 2 * reach(q, p)


def score_of(cost: Float[Array, " q"], q: Queries, p: Prepared) -> Float[Array, " q"]:
    """A lower bound, but for rounding, of the score that a row at this cost has."""
    if p.metric == "dot":
        return -cost / p.scale / p.scale / q.size
    if p.metric in ("cosine", "correlation"):
        return 1 - cost * (1 + 2e-5)
    distance = cost / p.scale
    square = distance / p.scale if p.metric == "sqeuclidean" else distance * distance
    return (q.size * jnp.sum(q.keys * q.keys, axis=1) - square / q.size * (1 + 2e-5)) / 2


def reach(q: Queries, p: Prepared) -> Float[Array, " q"]:
    """No score is larger, of either sign."""
    length = jnp.sqrt(jnp.sum(q.keys * q.keys, axis=1))
    product = length * p.radius
    if p.metric in ("euclidean", "sqeuclidean"):
        return product + (p.radius**2 / q.size + length**2 * q.size) / 2
    return product


def rounding(q: Queries, p: Prepared) -> Float[Array, " q"]:
    """How far float32 can put a score from the true one, whatever the order of its sums."""
    # products, then the norms of two vectors or two roundings of their entries, and as much for the cost itself
    units = (2 * p.rows.shape[1] + 32) * (2 if p.metric == "dot" else 1)
    most = reach(q, p)
    lost = p.rows.shape[1] * TINY / p.scale / p.scale / q.size if p.metric == "dot" else 0  # products below float32
    return most * (units * 2.0**-24) + jnp.where(most > 0, lost, 0)


def coding(q: Queries, p: Prepared, precision: str) -> Float[Array, " q"] | float:
    """How far codes can put a score from that of the keys."""
    if precision == "float32" or p.codes is None:
        return 0.0
    length = jnp.sqrt(jnp.sum(q.keys * q.keys, axis=1))
    lost = encode(q.keys, precision).residual
    return 1.001 * ((length + lost) * p.codes.residual + lost * p.radius)
