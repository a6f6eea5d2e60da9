"""Bin maxima on TPUs: the scores of one block of bins, in all eight slabs, are summed in VMEM."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from modeldiff_jax.kernels.pallas import pallas, pallas_tpu
from modeldiff_jax.kernels.prepared import BIN

_LANES = 128


def fused_bin_maxima(
    queries: Float[Array, "q c"],
    database: Float[Array, "n c"],
    bias: Float[Array, " n"] | None,
    weight: Float[Array, " q"],
    *,
    tiles: int,
    rows: int,
    bins: int,
    depth: int,
    interpret: bool = False,
) -> Float[Array, "q bins"]:
    """Computes the largest of `queries @ database.T + weight * bias` in each bin.

    Args:
      queries: bfloat16, or float32, whose products are in full float32.
      database: of the same type: `tiles` tiles of `BIN` slabs of a multiple of `bins` rows each.
      bias: bias of each row, or None.
      weight: factor of the bias, for each query.
      tiles: number of tiles.
      rows: queries computed at once.
      bins: bins computed at once.
      depth: entries of wider rows computed at once, at most.
      interpret: whether to simulate the kernel on a CPU.
    """
    pl, tpu = pallas(), pallas_tpu()
    number, width = queries.shape
    slab_rows = database.shape[0] // (tiles * BIN)
    rows = min(rows, -(-number // 16) * 16)
    if width > depth and width % _LANES:
        queries, database = (jnp.pad(x, ((0, 0), (0, -width % _LANES))) for x in (queries, database))
        width = queries.shape[1]
    # A block is a whole row or a whole number of lanes, and none extends beyond the end, where there are no zeros.
    block_depth = width if width <= depth else max(d for d in range(_LANES, depth + 1, _LANES) if width % d == 0)
    steps = width // block_depth
    exact = lax.Precision.HIGHEST if queries.dtype == jnp.float32 else lax.Precision.DEFAULT
    queries, weight = jnp.pad(queries, ((0, -number % rows), (0, 0))), jnp.pad(weight, (0, -number % rows))

    def body(query: Any, row: Any, *rest: Any) -> None:
        *of_bias, out, sums = rest
        step = pl.program_id(3)

        def clear() -> None:
            sums[...] = jnp.zeros(sums.shape, jnp.float32)

        def compare() -> None:
            best = None
            for slab in range(BIN):
                score = sums[slab]
                if of_bias:
                    score = score + of_bias[1][...] * of_bias[0][0, slab][None, :]
                best = score if best is None else jnp.maximum(best, score)
            out[...] = best

        pl.when(step == 0)(clear)
        for slab in range(BIN):
            sums[slab] += lax.dot_general(
                query[...],
                row[0, slab],
                (((1,), (1,)), ((), ())),
                precision=exact,
                preferred_element_type=jnp.float32,
            )
        pl.when(step == steps - 1)(compare)

    operands = [queries, database.reshape(tiles, BIN, slab_rows, width)]
    specs = [
        pl.BlockSpec((rows, block_depth), lambda i, t, b, k: (i, k)),
        pl.BlockSpec((1, BIN, bins, block_depth), lambda i, t, b, k: (t, 0, b, k)),
    ]
    if bias is not None:
        operands += [bias.reshape(tiles, BIN, slab_rows), weight[:, None]]
        specs += [
            pl.BlockSpec((1, BIN, bins), lambda i, t, b, k: (t, 0, b)),
            pl.BlockSpec((rows, 1), lambda i, t, b, k: (i, 0)),
        ]
    blocks = slab_rows // bins
    return pl.pallas_call(
        body,
        out_shape=jax.ShapeDtypeStruct((queries.shape[0], tiles * slab_rows), jnp.float32),
        grid=(queries.shape[0] // rows, tiles, blocks, steps),
        in_specs=specs,
        out_specs=pl.BlockSpec((rows, bins), lambda i, t, b, k: (i, t * blocks + b)),
        scratch_shapes=[tpu.VMEM((BIN, rows, bins), jnp.float32)],
        compiler_params=tpu.CompilerParams(dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")),
        interpret=interpret,
    )(*operands)[:number]
