"""Largest score of each bin of a prepared database: the first stage of a search, with nearly all of its arithmetic.

A score is `query . key + weight * bias`, as in `prepared`. A tile is eight slabs of rows, and bin b holds row b of each
slab, so scores of slabs are compared elementwise, without moving a number across lanes.

Precision: "float32" multiplies the keys in full float32. Others multiply codes: bfloat16 ones exactly, summed in
float32. The bias is added in float32, for the metrics that have one.

Memory: `xla` holds the scores of one tile at a time; the Pallas variants never write a score.

  pallas_gpu   bfloat16, on GPUs with the instructions of compute capability 9.0, up to 512 entries per row
  pallas_tpu   bfloat16 and float32
  xla          everything

The Pallas variants serve databases prepared on their platform, whose tiles fit their blocks. In a `jit` compiled for
another platform they fall back to `xla`, because the platform is only known after the variant is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from modeldiff_jax.kernels import tuned
from modeldiff_jax.kernels.dispatch import run
from modeldiff_jax.kernels.pallas import device_of
from modeldiff_jax.kernels.prepared import BIN, BLOCK_BINS, Prepared, encode, scores

PLATFORMS = {"pallas_gpu": "cuda", "pallas_tpu": "tpu"}
_DTYPES = {"pallas_gpu": ("bfloat16",), "pallas_tpu": ("bfloat16", "float32")}


def bin_maxima(
    keys: Float[Array, "q c"],
    weight: Float[Array, " q"],
    p: Prepared,
    precision: str,
    *,
    implementation: str | None = None,
) -> Float[Array, "q bins"]:
    """Returns the largest score of each bin of `p`.

    Args:
      keys: keys of the queries.
      weight: factor of the bias, for each query.
      p: database of a metric that has keys.
      precision: "float32", or that of the codes of `p`.
      implementation: a name of `VARIANTS`, or None for the first that serves the call.
    """
    return run("bin_maxima", VARIANTS, implementation, keys, weight, p, precision)


def biased(
    products: Float[Array, "q n"], weight: Float[Array, " q"], bias: Float[Array, " n"], metric: str
) -> Float[Array, "q n"]:
    """Adds the bias, for the metrics that have one. Without it padding scores 0, which at most keeps a bin too many."""
    if not has_bias(metric):
        return products
    # The barrier makes it a separate pass: fused with the next operation it takes ten times as long on a CPU.
    return lax.optimization_barrier(products + weight[:, None] * bias[None, :])


def has_bias(metric: str) -> bool:
    """Returns whether scores of a metric have a bias."""
    return metric in ("euclidean", "sqeuclidean")


def reference(
    keys: Float[Array, "q c"], weight: Float[Array, " q"], p: Prepared, precision: str
) -> Float[Array, "q bins"]:
    """Computes all scores at once: the definition."""
    tiles, height = p.tiles
    assert p.keys is not None
    if precision == "float32" or p.codes is None:
        products = jnp.matmul(keys, p.keys.T, precision=lax.Precision.HIGHEST)
    elif precision == "bfloat16":
        rows = p.codes.codes.astype(jnp.float32)
        queries = encode(keys, precision, rows.shape[1]).codes.astype(jnp.float32)
        products = jnp.matmul(queries, rows.T, precision=lax.Precision.HIGHEST)
    else:
        products = scores(encode(keys, precision), p.codes, keys.shape[1], precision)
    products = biased(products, weight, p.bias, p.metric)
    return jnp.max(products.reshape(keys.shape[0], tiles, BIN, height // BIN), axis=2).reshape(keys.shape[0], -1)


def xla(keys: Float[Array, "q c"], weight: Float[Array, " q"], p: Prepared, precision: str) -> Float[Array, "q bins"]:
    """Computes one tile after another."""
    tiles, height = p.tiles
    bins, queries = height // BIN, keys.shape[0]
    codes = p.codes if precision != "float32" else None
    source = p.keys if codes is None else codes.codes
    assert source is not None
    query_codes = None if codes is None else encode(keys, precision, codes.codes.shape[1])

    def of_tile(maxima: Array, tile: Array) -> tuple[Array, None]:
        part = partial(lax.dynamic_slice_in_dim, start_index=tile * height, slice_size=height)
        if codes is None or query_codes is None:
            products = jnp.matmul(keys, part(source).T, precision=lax.Precision.HIGHEST)
        else:
            tile_codes = codes._replace(codes=part(codes.codes), scale=part(codes.scale))
            products = scores(query_codes, tile_codes, keys.shape[1], precision)
        products = biased(products, weight, part(p.bias), p.metric)
        largest = jnp.max(products.reshape(queries, BIN, bins), axis=1)
        return lax.dynamic_update_slice_in_dim(maxima, largest, tile * bins, 1), None

    empty = jnp.zeros((queries, tiles * bins), jnp.float32)
    return lax.scan(of_tile, empty, jnp.arange(tiles, dtype=jnp.int32))[0]


def check(implementation: str, p: Prepared, precision: str) -> None:
    """Checks that a Pallas variant serves databases like `p` on this machine.

    Raises:
      NotImplementedError: it does not, with the reason.
    """
    device_of(PLATFORMS[implementation])
    block_sizes(implementation, p, precision)
    platforms = set() if isinstance(p.bias, jax.core.Tracer) else {device.platform for device in p.bias.devices()}
    if platforms and platforms != {"gpu" if implementation == "pallas_gpu" else "tpu"}:
        raise NotImplementedError(f"the database is on {platforms}")


def block_sizes(implementation: str, p: Prepared, precision: str) -> dict[str, int]:
    """Returns the block sizes of a Pallas variant for `p`.

    Raises:
      NotImplementedError: the variant does not support such a database, with the reason.
    """
    if precision not in _DTYPES[implementation] or p.keys is None:
        raise NotImplementedError(f"products in {precision} of {p.metric}: only in {_DTYPES[implementation]}")
    if p.tiles[1] % (BIN * BLOCK_BINS):
        raise NotImplementedError("the database was prepared on another platform, in other tiles")
    width = p.keys.shape[1] if precision == "float32" or p.codes is None else p.codes.codes.shape[1]
    return tuned.sizes("bin_maxima", implementation, precision, width)


def pallas_gpu(
    keys: Float[Array, "q c"], weight: Float[Array, " q"], p: Prepared, precision: str
) -> Float[Array, "q bins"]:
    """Multiplies with results kept in registers until only the maxima of bins are left."""
    check("pallas_gpu", p, precision)
    return _or_xla("pallas_gpu", keys, weight, p, precision)


def pallas_tpu(
    keys: Float[Array, "q c"], weight: Float[Array, " q"], p: Prepared, precision: str
) -> Float[Array, "q bins"]:
    """Multiplies with sums kept in VMEM, and writes only the maxima of bins."""
    check("pallas_tpu", p, precision)
    return _or_xla("pallas_tpu", keys, weight, p, precision)


def _or_xla(implementation: str, keys: Array, weight: Array, p: Prepared, precision: str) -> Array:
    return lax.platform_dependent(
        keys,
        weight,
        p,
        default=partial(xla, precision=precision),
        **{PLATFORMS[implementation]: partial(fused, implementation, precision=precision)},
    )


def fused(
    implementation: str,
    keys: Float[Array, "q c"],
    weight: Float[Array, " q"],
    p: Prepared,
    precision: str,
    interpret: bool = False,
) -> Float[Array, "q bins"]:
    """Calls a Pallas variant on any machine: compiled for its platform only, or interpreted on a CPU."""
    sizes = block_sizes(implementation, p, precision)
    rows = p.keys if precision == "float32" or p.codes is None else p.codes.codes
    assert rows is not None
    queries = keys if precision == "float32" else encode(keys, precision, rows.shape[1]).codes
    bias = p.bias if has_bias(p.metric) else None
    # Imported here, because importing Pallas takes a second.
    module = import_module(f"{__name__}.{implementation.removeprefix('pallas_')}")
    return module.fused_bin_maxima(queries, rows, bias, weight, tiles=p.tiles[0], interpret=interpret, **sizes)


VARIANTS: dict[str, Callable[[Array, Array, Prepared, str], Array]] = {
    "pallas_gpu": pallas_gpu,
    "pallas_tpu": pallas_tpu,
    "xla": xla,
    "reference": reference,
}
