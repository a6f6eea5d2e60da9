"""Bin maxima on NVIDIA GPUs of compute capability 9.0.

Each thread block keeps a tile of queries in shared memory and goes through its share of the database. One warpgroup
fetches rows ahead of their use, as many as there is room for, and two multiply them with 64 queries each. They multiply
the same few bins of all eight slabs at once, so maxima are taken between registers of one thread. Thread blocks that
share rows of the database run at the same time and read them from the second-level cache.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, BFloat16, Float

from modeldiff_jax.kernels.pallas import gpu_interpreter, gpu_load, pallas, pallas_gpu, processors
from modeldiff_jax.kernels.prepared import BIN

_ROWS = 64
"""Queries per warpgroup: the size of its matrix instruction."""
_DEPTH = 64
"""Entries fetched at once: 128 bytes, the widest swizzle of shared memory."""
_GROUPS = 2
_FETCHING, _MULTIPLYING = 40, 232
"""Registers per thread of the warpgroup that fetches, and of those that hold the sums; at most 2**16 in total."""


def fused_bin_maxima(
    queries: BFloat16[Array, "q c"],
    database: BFloat16[Array, "n c"],
    bias: Float[Array, " n"] | None,
    weight: Float[Array, " q"],
    *,
    tiles: int,
    bins: int,
    stages: int,
    interpret: bool = False,
) -> Float[Array, "q bins"]:
    """Computes the largest of `queries @ database.T + weight * bias` in each bin.

    Args:
      queries: codes of the queries.
      database: codes of the rows: `tiles` tiles of `BIN` slabs of a multiple of `bins` rows each.
      bias: bias of each row, or None.
      weight: factor of the bias, for each query.
      tiles: number of tiles.
      bins: bins computed at once.
      stages: number of blocks of `BIN * bins` rows by 64 entries in shared memory.
      interpret: whether to simulate the kernel on a CPU.
    """
    pl, gpu = pallas(), pallas_gpu()
    number, width = queries.shape[0], -(-queries.shape[1] // _DEPTH) * _DEPTH
    query_tile = _GROUPS * _ROWS
    queries = jnp.pad(queries, ((0, -number % query_tile), (0, width - queries.shape[1])))
    if database.shape[1] != width:
        database = jnp.pad(database, ((0, 0), (0, width - database.shape[1])))
    weight = jnp.pad(weight, (0, -number % query_tile))
    slab_rows, steps, query_tiles = database.shape[0] // (tiles * BIN), width // _DEPTH, queries.shape[0] // query_tile
    slab_blocks = slab_rows // bins
    blocks = tiles * slab_blocks
    parts = 1 if interpret else min(blocks, max(1, processors() // query_tiles))

    def body(query_ref: Any, row_ref: Any, *rest: Any) -> None:
        bias_ref, weight_ref, out_ref = rest if bias is not None else (None, None, *rest)

        def scope(query: Any, row: Any, out: Any, query_ready: Any, full: Any, empty: Any) -> None:
            group, part = lax.axis_index("group"), lax.axis_index("part")
            first = lax.axis_index("queries") * query_tile + group * _ROWS
            n_blocks = lax.div(blocks - part + parts - 1, jnp.int32(parts))

            def location(turn: Array) -> tuple[Array, Array]:
                """Returns the first row of a block of bins, and its first bin."""
                block = part + turn * parts
                tile, bin = lax.div(block, jnp.int32(slab_blocks)), lax.rem(block, jnp.int32(slab_blocks)) * bins
                return tile * (BIN * slab_rows) + bin, tile * slab_rows + bin

            def fetch(turn: Array) -> None:
                start, _ = location(turn)
                for k in range(steps):
                    step = turn * steps + k
                    slot = lax.rem(step, jnp.int32(stages))
                    pl.when(step >= stages)(lambda slot=slot: gpu.barrier_wait(empty.at[slot]))
                    for slab in range(BIN):
                        gpu.copy_gmem_to_smem(
                            row_ref.at[pl.ds(start + slab * slab_rows, bins), pl.ds(k * _DEPTH, _DEPTH)],
                            row.at[slot, pl.ds(slab * bins, bins)],
                            full.at[slot],
                        )

            def products(turn: Array, sums: Any) -> Array:
                for k in range(steps):
                    slot = lax.rem(turn * steps + k, jnp.int32(stages))
                    gpu.barrier_wait(full.at[slot])
                    gpu.wgmma(sums, query.at[group, :, pl.ds(k * _DEPTH, _DEPTH)], row.at[slot].transpose((1, 0)))
                    gpu.wgmma_wait(0)
                    gpu.barrier_arrive(empty.at[slot])
                return sums[...]

            def compare(turn: Array, weights: Array | None) -> None:
                start, bin = location(turn)
                sums = pl.run_scoped(lambda s: products(turn, s), gpu.ACC((_ROWS, BIN * bins), jnp.float32))
                best = None
                for slab in range(BIN):
                    score = sums[:, slab * bins : (slab + 1) * bins]
                    if weights is not None:
                        slab_bias = bias_ref.at[pl.ds(start + slab * slab_rows, bins)]
                        row_bias = gpu_load(slab_bias, gpu.Layout.WGMMA.reduce(0))
                        score = score + weights * lax.broadcast_in_dim(row_bias, (_ROWS, bins), [1])
                    best = score if best is None else jnp.maximum(best, score)
                gpu.wait_smem_to_gmem(0, wait_read_only=True)
                out[group] = best
                gpu.commit_smem()
                gpu.copy_smem_to_gmem(out.at[group], out_ref.at[pl.ds(first, _ROWS), pl.ds(bin, bins)])

            def fetch_all() -> None:
                gpu.set_max_registers(_FETCHING, action="decrease")
                pl.loop(0, n_blocks)(fetch)

            def compare_all() -> None:
                gpu.set_max_registers(_MULTIPLYING, action="increase")
                gpu.copy_gmem_to_smem(query_ref.at[pl.ds(first, _ROWS)], query.at[group], query_ready.at[group])
                gpu.barrier_wait(query_ready.at[group])
                weights = None
                if bias is not None:
                    weights = gpu_load(weight_ref.at[pl.ds(first, _ROWS)], gpu.Layout.WGMMA.reduce(1))
                    weights = lax.broadcast_in_dim(weights, (_ROWS, bins), [0])
                pl.loop(0, n_blocks)(lambda turn: compare(turn, weights))
                gpu.wait_smem_to_gmem(0)

            pl.when(group == _GROUPS)(fetch_all)
            pl.when(group < _GROUPS)(compare_all)

        def swizzled(bytes: int, entries: int) -> tuple[Any, Any]:
            return gpu.TilingTransform((8, entries)), gpu.SwizzleTransform(bytes)

        pl.run_scoped(
            scope,
            gpu.SMEM((_GROUPS, _ROWS, width), jnp.bfloat16, transforms=swizzled(2 * _DEPTH, _DEPTH)),
            gpu.SMEM((stages, BIN * bins, _DEPTH), jnp.bfloat16, transforms=swizzled(2 * _DEPTH, _DEPTH)),
            gpu.SMEM((_GROUPS, _ROWS, bins), jnp.float32, transforms=swizzled(4 * bins, bins)),
            gpu.Barrier(num_barriers=_GROUPS),
            gpu.Barrier(num_arrivals=BIN, num_barriers=stages),
            gpu.Barrier(num_arrivals=_GROUPS, num_barriers=stages),
            collective_axes="group",
        )

    kernel = gpu.kernel(
        body,
        out_type=jax.ShapeDtypeStruct((queries.shape[0], tiles * slab_rows), jnp.float32),
        grid=(query_tiles, parts),
        grid_names=("queries", "part"),
        num_threads=_GROUPS + 1,
        thread_name="group",
        compiler_params=gpu.CompilerParams(lowering_semantics=gpu.LoweringSemantics.Warpgroup),
        interpret=gpu_interpreter() if interpret else None,
    )
    return kernel(queries, database, *(() if bias is None else (bias, weight)))[:number]
