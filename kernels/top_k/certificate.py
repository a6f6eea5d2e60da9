"""Certificates that the result of a filter is exact, from bounds on scores and on their errors.

A filter ranks rows by approximate scores and measures some of them. Its result is certified for a query if the k-th row
is nearer than every row that was not measured, even if the errors of both, from rounding and from low-precision codes,
are as large as possible.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from modeldiff_jax.kernels.prepared import Prepared, encode
from modeldiff_jax.kernels.top_k.exact import Queries
from modeldiff_jax.kernels.vectors import TINY

_COST_ERROR = 2e-5
"""Relative error of costs: twice the bound of `paired`."""


def is_certified(
    cost: Float[Array, " q"], best_other: Float[Array, " q"], q: Queries, p: Prepared
) -> Bool[Array, " q"]:
    """Returns whether a row of a cost is certainly nearer than rows whose score is at most `best_other`."""
    error = error_bound(q, p)
    # An error bound of zero means a query of zeros, for which scores do not distinguish rows.
    return (error > 0) & jnp.isfinite(cost) & (score_of(cost, q, p) > best_other + error)


def score_of(cost: Float[Array, " q"], q: Queries, p: Prepared) -> Float[Array, " q"]:
    """Returns a lower bound, up to rounding, of the score of a row at this cost."""
    if p.metric == "dot":
        return -cost / p.scale / p.scale / q.scale
    if p.metric in ("cosine", "correlation"):
        return 1 - cost * (1 + _COST_ERROR)
    distance = cost / p.scale
    square = distance / p.scale if p.metric == "sqeuclidean" else distance * distance
    return (q.scale * jnp.sum(q.keys * q.keys, axis=1) - square / q.scale * (1 + _COST_ERROR)) / 2


def score_bound(q: Queries, p: Prepared) -> Float[Array, " q"]:
    """Returns an upper bound of the magnitude of every score of a query."""
    length = jnp.sqrt(jnp.sum(q.keys * q.keys, axis=1))
    product = length * p.radius
    if p.metric in ("euclidean", "sqeuclidean"):
        return product + (p.radius**2 / q.scale + length**2 * q.scale) / 2
    return product


def error_bound(q: Queries, p: Prepared) -> Float[Array, " q"]:
    """Returns an upper bound of the rounding error of a score computed in float32, whatever the order of its sums."""
    width = p.padded_rows.shape[1]
    # one rounding per product and per sum, then the norms of two vectors or two roundings of their entries; for dot
    # twice that, since the cost itself is rounded likewise
    units = (2 * width + 32) * (2 if p.metric == "dot" else 1)
    largest = score_bound(q, p)
    underflow = width * TINY / p.scale / p.scale / q.scale if p.metric == "dot" else 0  # products below float32's range
    return largest * (units * 2.0**-24) + jnp.where(largest > 0, underflow, 0)


def code_error_bound(q: Queries, p: Prepared, precision: str) -> Float[Array, " q"] | float:
    """Returns an upper bound of the difference between scores of codes and scores of keys."""
    if precision == "float32" or p.codes is None:
        return 0.0
    length = jnp.sqrt(jnp.sum(q.keys * q.keys, axis=1))
    residual = encode(q.keys, precision).residual
    return 1.001 * ((length + residual) * p.codes.residual + residual * p.radius)
