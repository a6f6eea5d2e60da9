"""Filter by bin maxima: keeps the bins with the largest scores and compares all of their rows again."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from modeldiff_jax.kernels.bin_maxima import bin_maxima
from modeldiff_jax.kernels.largest import argtop_k
from modeldiff_jax.kernels.prepared import BIN, Prepared
from modeldiff_jax.kernels.top_k.certificate import code_error_bound, is_certified
from modeldiff_jax.kernels.top_k.exact import Neighbours, Queries, measure_candidates

SPARE = 5
"""Candidates beyond k. Certification needs a gap between the k-th row and all rows that are not measured."""


def bins_kept(k: int, precision: str) -> int:
    """Returns the number of bins that the first stage keeps."""
    return k + SPARE if precision == "float32" else 3 * k + 32


def filter_and_refine(
    q: Queries,
    p: Prepared,
    k: int,
    precision: str,
    bins: int,
    maxima: Float[Array, "q bins"] | None = None,
    implementation: str = "xla",
) -> Neighbours:
    """Searches the bins with the largest maxima.

    Args:
      q: queries.
      p: database with keys.
      k: number of results.
      precision: precision of the maxima.
      bins: number of bins to keep. Their rows are scored in float32, and the best k + SPARE of them measured.
      maxima: largest score of each bin, computed here by default.
      implementation: variant of `bin_maxima` that computes them.
    """
    _, height = p.tiles
    bins_per_tile = height // BIN
    assert p.keys is not None
    if maxima is None:
        maxima = bin_maxima(q.keys, 1 / q.scale, p, precision, implementation=implementation)
    _, best_bins, bound = best_and_bound(maxima, bins)
    first = best_bins // bins_per_tile * height + best_bins % bins_per_tile
    rows = first[:, :, None] + bins_per_tile * jnp.arange(BIN, dtype=jnp.int32)[None, None, :]
    rows = rows.reshape(rows.shape[0], -1)
    products = jnp.sum(p.keys[rows] * q.keys[:, None, :], axis=2)
    scores = jnp.where(rows == q.excluded[:, None], -jnp.inf, products + (1 / q.scale)[:, None] * p.bias[rows])
    _, position, bound_of_rows = best_and_bound(lax.optimization_barrier(scores), k + SPARE)
    rows = jnp.take_along_axis(rows, position, axis=1)
    costs, rows = measure_candidates(rows, q, p, k)
    best_other = jnp.maximum(bound + code_error_bound(q, p, precision), bound_of_rows)
    return Neighbours(costs, rows, is_certified(costs[:, -1], best_other, q, p))


def best_and_bound(x: Float[Array, "b n"], count: int) -> tuple[Array, Array, Array]:
    """Returns the `count` largest entries of each row, their indices, and the largest other entry, or -inf."""
    if count >= x.shape[1]:
        index = jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32)[None, :], x.shape)
        return x, index, jnp.full(x.shape[0], -jnp.inf, x.dtype)
    index = argtop_k(x, count + 1)
    values = jnp.take_along_axis(x, index, axis=1, mode="promise_in_bounds")
    return values[:, :-1], index[:, :-1], values[:, -1]
