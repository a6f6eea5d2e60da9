"""Exact search: the k nearest rows of a database for each query, without materialising the queries x rows scores.

Types: as in `paired`: real numbers in, float32 arithmetic and float32 out. Products are in full float32, whatever
`jax_default_matmul_precision` says, except in the first stage over a database prepared in lower precision.

Exactness: the result is the order of `paired_distances` (for "dot", of the sum of products in float32) over all rows,
ties by index. A first stage ranks all rows by inner products. The best of them are measured again by `paired`'s
formulas, so small distances keep their digits, and the k best are returned if they are certified: if error bounds prove
that no other row is nearer. Queries without a certificate (hundreds of near duplicates, ties, zero vectors, NaN) are
searched for again in float32, then with more candidates, then against every row.

Zero rule: that of `paired`.

NaN rule: a row with NaN is last, and its value is NaN; for a query with NaN the result is rows 0 to k - 1, with values
of NaN.

Bounds: 1 <= k <= N.

Gradients: values are differentiable in the queries and in the database, as `paired_distances` of the rows returned.
Indices have no derivative, and nothing flows through the choice of rows.

Compilation: outside `jit`, numbers of queries, of rows and of neighbours are rounded up to common sizes (see
`buckets`), so calls of nearby sizes share compiled programs; and a call waits for its result.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.bin_maxima import check
from modeldiff_jax.kernels.buckets import count_bucket, query_bucket
from modeldiff_jax.kernels.dispatch import run
from modeldiff_jax.kernels.inputs import ArrayInput, as_float32
from modeldiff_jax.kernels.largest import check_count
from modeldiff_jax.kernels.prepared import Prepared
from modeldiff_jax.kernels.top_k.cascade import search_cascade
from modeldiff_jax.kernels.top_k.derivatives import differentiable_costs
from modeldiff_jax.kernels.top_k.exact import as_prepared, prepare_queries, search_all_rows, to_values


def top_k(
    queries: ArrayInput,
    database: ArrayInput | Prepared,
    k: int,
    metric: str | None = None,
    *,
    implementation: str | None = None,
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """Returns the `k` rows of `database` nearest to each query.

    Args:
      queries: (Q, C), real numbers, a vector per row.
      database: (N, C), or the result of `prepare`.
      k: number of rows, from 1 to N.
      metric: as in `prepare`; None for that of the prepared database, or "cosine".
      implementation: "pallas_gpu", "pallas_tpu", "xla", "reference", or None for the first that serves the call.

    Returns:
      values (Q, k), float32: similarities, descending, for "cosine" and "dot"; else distances, ascending. Indices
      (Q, k), int32. Cosine similarities are ordered by their distances, which distinguish more than the similarities
      do after rounding. Ties are ordered by index, and rows with NaN are last. Values are differentiable in the queries
      and in the database.

    Raises:
      InvalidInputError: shapes do not fit, `k` is not from 1 to N, or a name is unknown or not the prepared one.
    """
    prepared = as_prepared(database, metric, "top_k")
    vectors = as_float32(queries, "top_k: queries")
    width = prepared.padded_rows.shape[-1]
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise InvalidInputError(
            "`queries` is (Q, C) and `database` is (N, C)",
            got=f"{vectors.shape} and {(prepared.count, width)}",
            where="top_k",
        )
    check_count(k, prepared.count, "top_k")
    costs, rows = nearest(vectors, prepared, k, implementation)
    return to_values(costs, prepared.metric), rows


def nearest(
    vectors: Float[Array, "q c"], prepared: Prepared, k: int, implementation: str | None = None
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """Returns costs and indices of the `k` nearest rows, without checking the arguments."""
    constant, p = without_derivatives((vectors, prepared.with_padding_as_rows()))
    bucket = k
    if vectors.shape[0] and not is_traced((constant, p)):
        constant, bucket = _padded(constant, query_bucket(vectors.shape[0])), min(count_bucket(k), prepared.count)
    costs, rows = run("top_k", VARIANTS, implementation, constant, p, bucket)
    return trimmed(costs, rows, vectors, prepared.padded_rows, k, prepared.metric)


def is_traced(values: Any) -> bool:
    """Returns whether a transformation such as `jit` or `vmap` traces one of some values."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


T = TypeVar("T")


def without_derivatives(values: T) -> T:
    """Stops derivatives, so that a search under `grad` runs on concrete values."""
    return lax.stop_gradient(values) if is_traced(values) else values


@partial(jax.jit, static_argnames="size")
def _padded(vectors: Float[Array, "q c"], size: int) -> Float[Array, "padded c"]:
    return jnp.pad(vectors, ((0, size - vectors.shape[0]), (0, 0)), mode="edge")


@partial(jax.jit, static_argnames=("k", "metric"))
def trimmed(
    costs: Array, rows: Array, vectors: Array, database: Array, k: int, metric: str
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """Removes padding and attaches the derivatives."""
    costs, rows = costs[: vectors.shape[0], :k], rows[: vectors.shape[0], :k]
    return differentiable_costs(costs, rows, vectors, database, metric), rows


@partial(jax.jit, static_argnames="k")
@jax.named_scope("top_k.reference")
def reference(vectors: Float[Array, "q c"], p: Prepared, k: int) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """Compares every query with every row: the definition."""
    neighbours = search_all_rows(prepare_queries(vectors, p), p, k)
    return neighbours.costs, neighbours.rows


def xla(vectors: Float[Array, "q c"], p: Prepared, k: int) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """Filters by bins of inner products, and searches again for queries that this does not certify."""
    return search_cascade(vectors, p, k)


def _fused(
    implementation: str, vectors: Float[Array, "q c"], p: Prepared, k: int
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """Filters as `xla` does, with a first stage that never writes a score."""
    check(implementation, p, p.precision)
    return search_cascade(vectors, p, k, implementation=implementation)


pallas_gpu = partial(_fused, "pallas_gpu")
pallas_tpu = partial(_fused, "pallas_tpu")

VARIANTS: dict[str, Callable[[Array, Prepared, int], tuple[Array, Array]]] = {
    "pallas_gpu": pallas_gpu,
    "pallas_tpu": pallas_tpu,
    "xla": xla,
    "reference": reference,
}
