"""Search and self-join over the devices of a mesh; every device holds a shard of the rows.

Each device finds the k best rows of its shard, these are gathered (8 bytes per row, query and device), and every device
merges them. Exactness, ties, zero and NaN rules are those of `top_k`. The mesh may span processes.

Types: as in `paired`.

Bounds: rows are padded to equal shards with rows of NaN, which are never part of a result, since k <= N.

Gradients: values are differentiable as in `top_k`, for which the rows of the result are gathered from all devices.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.inputs import ArrayInput, as_float32
from modeldiff_jax.kernels.largest import check_count
from modeldiff_jax.kernels.prepared import METRICS, prepare
from modeldiff_jax.kernels.top_k.cascade import search_cascade
from modeldiff_jax.kernels.top_k.derivatives import differentiable_costs
from modeldiff_jax.kernels.top_k.exact import sort_by_cost, to_values
from modeldiff_jax.kernels.vectors import as_matrices


def sharded_top_k(
    queries: ArrayInput, database: ArrayInput, k: int, metric: str = "cosine", *, mesh: Mesh, axis: str
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """Returns the same result as `top_k`, with the rows of `database` sharded along one axis of a mesh.

    Args:
      queries: (Q, C), real numbers; replicated on every device.
      database: (N, C). An array sharded along `axis` already is not moved if N is a multiple of the axis' size.
      k: number of rows, from 1 to N.
      metric: as in `prepare`.
      mesh: the devices.
      axis: mesh axis that the rows are sharded along.

    Returns:
      values and indices as `top_k` returns them, the same on every device.

    Raises:
      InvalidInputError: shapes do not fit, `k` is out of range, a name is unknown, or the mesh has no such axis.
    """
    where = "sharded_top_k"
    vectors, rows = as_matrices(queries, database, where, names=("queries", "database"), shapes=("(Q, C)", "(N, C)"))
    assert rows is not None
    check_count(k, rows.shape[0], where)
    _check_names(mesh, axis, metric, where)
    costs, index = _search(vectors, rows, k, metric, mesh, axis)
    return to_values(costs, metric), index


def sharded_self_join(
    x: ArrayInput, k: int, metric: str = "cosine", *, mesh: Mesh, axis: str
) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """Returns the same result as `self_join` with `k`, with the rows sharded along one axis of a mesh.

    Shards travel around the ring of devices as queries, so no device ever holds more than two shards.

    Args:
      x: (N, C), real numbers.
      k: number of other rows per row, from 1 to N - 1.
      metric: as in `prepare`.
      mesh: the devices.
      axis: mesh axis that the rows are sharded along.

    Returns:
      values and indices as `self_join` returns them, sharded like the rows.

    Raises:
      InvalidInputError: not a matrix, `k` is out of range, a name is unknown, or the mesh has no such axis.
    """
    rows = as_float32(x, "sharded_self_join: x")
    if rows.ndim != 2:
        raise InvalidInputError("`x` is (N, C)", got=f"{rows.shape}", where="sharded_self_join")
    check_count(k, rows.shape[0] - 1, "sharded_self_join")
    _check_names(mesh, axis, metric, "sharded_self_join")
    costs, index = _join(rows, k, metric, mesh, axis)
    return to_values(costs, metric), index


def _check_names(mesh: Mesh, axis: str, metric: str, where: str) -> None:
    if axis not in mesh.shape:
        raise InvalidInputError("`axis` is an axis of the mesh", got=f"{axis!r} of {tuple(mesh.shape)}", where=where)
    if metric not in METRICS:
        raise InvalidInputError(f"`metric` is one of {', '.join(METRICS)}", got=repr(metric), where=where)


def _in_equal_shards(rows: Array, devices: int) -> Array:
    padding = -rows.shape[0] % devices
    return jnp.pad(rows, ((0, padding), (0, 0)), constant_values=jnp.nan) if padding else rows


def search_shard(
    vectors: Float[Array, "q c"],
    shard: Float[Array, "here c"],
    start: Int[Array, ""],
    excluded: Int[Array, " q"] | None,
    k: int,
    n: int,
    metric: str,
) -> tuple[Float[Array, "q some"], Int[Array, "q some"]]:
    """Returns costs and numbers of the best rows of one shard: `k`, or all if it has fewer.

    Args:
      vectors: queries.
      shard: its rows.
      start: number of its first row.
      excluded: number of the row to leave out of each query's result, or None.
      k: number of rows.
      n: number of rows of all shards; missing results are row `n` at infinite cost.
      metric: as in `prepare`.
    """
    size = shard.shape[0]
    local = None
    if excluded is not None:
        local = jnp.where((excluded >= start) & (excluded < start + size), excluded - start, -1)
    costs, rows = search_cascade(vectors, prepare(shard, metric), min(k, size), local)
    invalid = (rows >= size) | (rows + start >= n)
    return jnp.where(invalid, jnp.inf, costs), jnp.where(invalid, n, rows + start)


def merge_shards(
    costs: Float[Array, "q some"], rows: Int[Array, "q some"], n: int, k: int
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """Returns the `k` best of the concatenated results of several shards."""
    return sort_by_cost(costs, rows, jnp.full(rows.shape[0], -1, jnp.int32), n, k)


@partial(jax.jit, static_argnames=("k", "metric", "mesh", "axis"))
@jax.named_scope("sharded_top_k")
def _search(vectors: Array, rows: Array, k: int, metric: str, mesh: Mesh, axis: str) -> tuple[Array, Array]:
    n = rows.shape[0]

    def search(vectors: Array, shard: Array) -> tuple[Array, Array]:
        start = lax.axis_index(axis).astype(jnp.int32) * shard.shape[0]
        results = search_shard(vectors, shard, start, None, k, n, metric)
        costs, index = (lax.all_gather(x, axis, axis=1, tiled=True) for x in results)
        return merge_shards(costs, index, n, k)

    run = jax.shard_map(search, mesh=mesh, in_specs=(P(), P(axis)), out_specs=P(), check_vma=False)
    costs, index = run(*lax.stop_gradient((vectors, _in_equal_shards(rows, mesh.shape[axis]))))
    return differentiable_costs(costs, index, vectors, rows, metric), index


@partial(jax.jit, static_argnames=("k", "metric", "mesh", "axis"))
@jax.named_scope("sharded_self_join")
def _join(rows: Array, k: int, metric: str, mesh: Mesh, axis: str) -> tuple[Array, Array]:
    n, devices = rows.shape[0], mesh.shape[axis]
    ring = [(i, (i + 1) % devices) for i in range(devices)]

    def join(shard: Array) -> tuple[Array, Array]:
        size = shard.shape[0]
        device = lax.axis_index(axis).astype(jnp.int32)
        numbers = device * size + jnp.arange(size, dtype=jnp.int32)

        def step(state: tuple[Array, Array, Array], turn: Array) -> tuple[tuple[Array, Array, Array], None]:
            visitor, costs, index = state
            start = (device - turn) % devices * size
            new_costs, new_index = search_shard(shard, visitor, start, numbers, k, n, metric)
            merged = merge_shards(jnp.hstack([costs, new_costs]), jnp.hstack([index, new_index]), n, k)
            return (lax.ppermute(visitor, axis, ring), *merged), None

        nothing = jnp.full((size, k), jnp.inf, jnp.float32), jnp.full((size, k), n, jnp.int32)
        (_, costs, index), _ = lax.scan(step, (shard, *nothing), jnp.arange(devices, dtype=jnp.int32))
        return costs, index

    run = jax.shard_map(join, mesh=mesh, in_specs=P(axis), out_specs=P(axis), check_vma=False)
    costs, index = run(lax.stop_gradient(_in_equal_shards(rows, devices)))
    if n % devices:
        costs, index = costs[:n], index[:n]
    return differentiable_costs(costs, index, rows, rows, metric), index
