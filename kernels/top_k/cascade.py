"""Cascade of filters: each stage searches for the queries that the stage before could not certify."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from modeldiff_jax.kernels.prepared import BIN, Prepared
from modeldiff_jax.kernels.top_k import bin_filter, top2_filter
from modeldiff_jax.kernels.top_k.exact import Neighbours, Queries, prepare_queries, search_all_rows, search_tiles

Stage: TypeAlias = Callable[..., Neighbours]

_QUERIES_AT_ONCE = 64, 16
"""Uncertified queries searched for at once, by the second stage and by later ones."""


def uses_top2_filter(p: Prepared, k: int) -> bool:
    """Returns whether the top-2 filter is the first stage: in float32 on a CPU, with at least 8 bins per candidate."""
    if p.keys is None or p.precision != "float32" or jax.default_backend() != "cpu":
        return False
    bins = p.keys.shape[0] // top2_filter.rows_per_bin(p.padded_rows.shape[0])
    return bins >= 8 * (k + bin_filter.SPARE)


def cascade(p: Prepared, k: int, implementation: str = "xla") -> list[Stage]:
    """Returns the stages of a search, from the fastest to the one that certifies everything.

    Args:
      p: database.
      k: number of results.
      implementation: variant of the first bin filter.
    """
    if p.keys is None:
        return [partial(search_tiles, p=p, k=k)]
    first = partial(
        bin_filter.filter_and_refine,
        p=p,
        k=k,
        precision=p.precision,
        bins=bin_filter.bins_kept(k, p.precision),
        implementation=implementation,
    )
    stages: list[Stage] = [first]
    if uses_top2_filter(p, k):
        stages.insert(0, partial(top2_filter.filter_and_refine, p=p, k=k))
    wide = 8 * k + 128
    if 4 * wide < p.keys.shape[0] // BIN:
        stages.append(partial(bin_filter.filter_and_refine, p=p, k=k, precision="float32", bins=wide))
    return [*stages, partial(search_all_rows, p=p, k=k)]


def run_cascade(
    first: Neighbours, q: Queries, stages: list[Stage], queries_at_once: int = _QUERIES_AT_ONCE[0]
) -> Neighbours:
    """Replaces the uncertified part of a stage's result by that of the stages after it."""
    if not stages:
        return first
    total = q.excluded.shape[0]

    def search_some(neighbours: Neighbours) -> Neighbours:
        (chosen,) = jnp.nonzero(~neighbours.certified, size=min(queries_at_once, total), fill_value=total)
        some = Queries(*(x.at[chosen].get(mode="clip") for x in q))
        results = run_cascade(stages[0](some), some, stages[1:], _QUERIES_AT_ONCE[1])
        results = results._replace(certified=jnp.ones_like(results.certified))
        merged = (old.at[chosen].set(new, mode="drop") for old, new in zip(neighbours, results, strict=True))
        return Neighbours(*merged)

    return lax.while_loop(lambda neighbours: jnp.any(~neighbours.certified), search_some, first)


def query_block_size(p: Prepared, k: int, implementation: str = "xla") -> int:
    """Returns the number of queries in a block of the first stage, which bounds the memory of scores and candidates."""
    if p.keys is None:
        return max(1, min(1024, 2**24 // p.padded_rows.shape[0]))
    if uses_top2_filter(p, k):
        return max(1, min(256, 2**28 // p.keys.shape[0]))
    bins = p.keys.shape[0] // BIN
    candidates = min(bins, bin_filter.bins_kept(k, p.precision)) * BIN
    entries = 2**25 if implementation == "xla" else 2**28  # an accelerator idles on few queries
    return max(1, min(1024, entries // max(bins, candidates * p.padded_rows.shape[1])))


def map_in_blocks(search: Callable[[Array], Neighbours], queries: Int[Array, " q"], size: int) -> Neighbours:
    """Applies `search` to nearly equal blocks of at most `size` query numbers, one block after another."""
    total = queries.shape[0]
    blocks = max(1, -(-total // size))
    if blocks == 1:
        return search(queries)
    each = -(-total // blocks)
    results = lax.map(search, jnp.pad(queries, (0, blocks * each - total), mode="edge").reshape(blocks, each))
    return Neighbours(*(x.reshape(blocks * each, *x.shape[2:])[:total] for x in results))


def search_cascade(
    vectors: Float[Array, "q c"],
    p: Prepared,
    k: int,
    excluded: Int[Array, " q"] | None = None,
    implementation: str = "xla",
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """Returns costs and indices of the `k` nearest rows of each query.

    The first stage and the later ones are two programs. Outside `jit` the second, which takes longer to compile, is
    compiled and run only if a query is left uncertified; so such a call waits for the first to finish.

    Args:
      vectors: queries.
      p: database, whose padding counts as rows.
      k: number of results.
      excluded: row to leave out of each query's result, or None.
      implementation: variant of the first bin filter.
    """
    if vectors.shape[0] == 0:
        return jnp.zeros((0, k), jnp.float32), jnp.zeros((0, k), jnp.int32)
    first, all_certified = _first_stage(vectors, p, excluded, k, implementation)
    if not is_known(all_certified):
        first = _later_stages(first, vectors, p, excluded, k, implementation)
    return first.costs, first.rows


def is_known(condition: Bool[Array, ""]) -> bool:
    """Returns whether a condition is known to hold: it is not being traced, and true."""
    if isinstance(condition, jax.core.Tracer) or not condition.is_fully_addressable:
        return False
    return bool(jax.device_get(condition))


@partial(jax.jit, static_argnames=("k", "implementation"))
def _first_stage(
    vectors: Array, p: Prepared, excluded: Array | None, k: int, implementation: str
) -> tuple[Neighbours, Array]:
    with jax.named_scope(f"top_k.{implementation}"):
        q = prepare_queries(vectors, p, excluded)
        # XLA fuses the product of a single query with what follows it, at ten times the cost: search for it twice.
        numbers = jnp.arange(max(2, vectors.shape[0]), dtype=jnp.int32) % vectors.shape[0]
        stage = cascade(p, k, implementation)[0]

        def search_block(numbers: Array) -> Neighbours:
            return stage(Queries(*(x[numbers] for x in q)))

        neighbours = map_in_blocks(search_block, numbers, query_block_size(p, k, implementation))
        neighbours = Neighbours(*(x[: vectors.shape[0]] for x in neighbours))
        return neighbours, jnp.all(neighbours.certified)


@partial(jax.jit, static_argnames=("k", "implementation"))
def _later_stages(
    first: Neighbours, vectors: Array, p: Prepared, excluded: Array | None, k: int, implementation: str
) -> Neighbours:
    with jax.named_scope(f"top_k.{implementation}"):
        return run_cascade(first, prepare_queries(vectors, p, excluded), cascade(p, k, implementation)[1:])
