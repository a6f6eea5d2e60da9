"""Search and self-join over the devices of a mesh: every device holds some of the rows.

Each device finds the k best of its own rows, `k` rows of each are gathered (8 bytes a row, a query and a device), and
every device merges them. Exactness, ties, zero and NaN rules are those of `top_k`. The mesh may span processes.

Types: as in `paired`.

Bounds: rows are padded to equal shares with rows of NaN, which are never found while k <= N.
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
from modeldiff_jax.kernels import search
from modeldiff_jax.kernels.inputs import ArrayInput, as_float32
from modeldiff_jax.kernels.prepared import prepare
from modeldiff_jax.kernels.selection import check_count


def sharded_top_k(
    queries: ArrayInput, database: ArrayInput, k: int, metric: str = "cosine", *, mesh: Mesh, axis: str
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """`top_k`, the rows of `database` shared out along one axis of a mesh.

    Args:
      queries: (Q, C), real numbers; every device gets all.
      database: (N, C); of an array that is sharded along `axis` nothing is moved, if N is a multiple of its size.
      k: how many, from 1 to N.
      metric: as in `prepare`.
      mesh: the devices.
      axis: the mesh axis that rows are shared out along.

    Returns:
      As `top_k`; the same on every device.

    Raises:
      InvalidInputError: shapes do not fit, `k` is out of range, or the mesh has no such axis.
    """
    vectors, rows = as_float32(queries, "sharded_top_k: queries"), as_float32(database, "sharded_top_k: database")
    if vectors.ndim != 2 or rows.ndim != 2 or vectors.shape[1] != rows.shape[1]:
        raise InvalidInputError(
            "`queries` is (Q, C) and `database` is (N, C)", got=f"{vectors.shape}, {rows.shape}", where="sharded_top_k"
        )
    check_count(k, rows.shape[0], "sharded_top_k")
    _check_axis(mesh, axis, "sharded_top_k")
    cost, index = _search(vectors, rows, k, metric, mesh, axis)
    return search.as_value(cost, metric), index


def sharded_self_join(
    x: ArrayInput, k: int, metric: str = "cosine", *, mesh: Mesh, axis: str
) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """`self_join` with `k`, the rows shared out along one axis of a mesh.

    Shards of queries go round the ring of devices, so that no device ever holds more than two shards.

    Args:
      x: (N, C), real numbers.
      k: how many others of each row, from 1 to N - 1.
      metric: as in `prepare`.
      mesh: the devices.
      axis: the mesh axis that rows are shared out along.

    Returns:
      As `self_join`, sharded like the rows.

    Raises:
      InvalidInputError: not a matrix, `k` is out of range, or the mesh has no such axis.
    """
    rows = as_float32(x, "sharded_self_join: x")
    if rows.ndim != 2:
        raise InvalidInputError("`x` is (N, C)", got=f"{rows.shape}", where="sharded_self_join")
    check_count(k, rows.shape[0] - 1, "sharded_self_join")
    _check_axis(mesh, axis, "sharded_self_join")
    cost, index = _join(rows, k, metric, mesh, axis)
    return search.as_value(cost, metric), index


def _check_axis(mesh: Mesh, axis: str, where: str) -> None:
    if axis not in mesh.shape:
        raise InvalidInputError("`axis` is an axis of the mesh", got=f"{axis!r} of {tuple(mesh.shape)}", where=where)


def _shares(rows: Array, devices: int) -> Array:
    padding = -rows.shape[0] % devices
    return jnp.pad(rows, ((0, padding), (0, 0)), constant_values=jnp.nan) if padding else rows


def best_of_shard(
    vectors: Float[Array, "q c"],
    rows: Float[Array, "here c"],
    start: Int[Array, ""],
    own: Int[Array, " q"] | None,
    k: int,
    n: int,
    metric: str,
) -> tuple[Float[Array, "q found"], Int[Array, "q found"]]:
    """Costs and numbers of the best rows of one shard, of which the first is number `start` of `n`: at most `k`.

    What is no row of the `n`, or a query's `own`, has infinite cost and the number `n`.
    """
    here = rows.shape[0]
    numbers = None if own is None else jnp.where((own >= start) & (own < start + here), own - start, -1)
    cost, index = search.found_by(vectors, prepare(rows, metric), min(k, here), numbers)
    out = (index >= here) | (index + start >= n)  # a shard no larger than k has the row itself last, as number `here`
    index = index + start
    return jnp.where(out, jnp.inf, cost), jnp.where(out, n, index)


def merge(
    cost: Float[Array, "q found"], index: Int[Array, "q found"], n: int, k: int
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """The `k` best of what several shards found."""
    nobody = jnp.full(index.shape[0], -1, jnp.int32)
    return search.ordered(cost, index, nobody, n, k)


@partial(jax.jit, static_argnames=("k", "metric", "mesh", "axis"))
@jax.named_scope("sharded_top_k")
def _search(vectors: Array, rows: Array, k: int, metric: str, mesh: Mesh, axis: str) -> tuple[Array, Array]:
    n = rows.shape[0]

    def shard(vectors: Array, rows: Array) -> tuple[Array, Array]:
        start = lax.axis_index(axis).astype(jnp.int32) * rows.shape[0]
        found = best_of_shard(vectors, rows, start, None, k, n, metric)
        cost, index = (lax.all_gather(x, axis, axis=1, tiled=True) for x in found)
        return merge(cost, index, n, k)

    run = jax.shard_map(shard, mesh=mesh, in_specs=(P(), P(axis)), out_specs=P(), check_vma=False)
    return run(vectors, _shares(rows, mesh.shape[axis]))


@partial(jax.jit, static_argnames=("k", "metric", "mesh", "axis"))
@jax.named_scope("sharded_self_join")
def _join(rows: Array, k: int, metric: str, mesh: Mesh, axis: str) -> tuple[Array, Array]:
    n, devices = rows.shape[0], mesh.shape[axis]
    ring = [(i, (i + 1) % devices) for i in range(devices)]

    def shard(rows: Array) -> tuple[Array, Array]:
        here = rows.shape[0]
        me = lax.axis_index(axis).astype(jnp.int32)
        own = me * here + jnp.arange(here, dtype=jnp.int32)

        def step(carry: tuple[Array, Array, Array], turn: Array) -> tuple[tuple[Array, Array, Array], None]:
            visitors, cost, index = carry
            start = (me - turn) % devices * here
            found = best_of_shard(rows, visitors, start, own, k, n, metric)
            merged = merge(jnp.hstack([cost, found[0]]), jnp.hstack([index, found[1]]), n, k)
            return (lax.ppermute(visitors, axis, ring), *merged), None

        nothing = jnp.full((here, k), jnp.inf, jnp.float32), jnp.full((here, k), n, jnp.int32)
        (_, cost, index), _ = lax.scan(step, (rows, *nothing), jnp.arange(devices, dtype=jnp.int32))
        return cost, index

    run = jax.shard_map(shard, mesh=mesh, in_specs=P(axis), out_specs=P(axis), check_vma=False)
    cost, index = run(_shares(rows, devices))
    return (cost, index) if n % devices == 0 else (cost[:n], index[:n])
