"""The largest score of each bin of a prepared database: the first look of a search, and nearly all of its arithmetic.

A score is `query . key + weight * bias`, as in `prepared`. Bin b of a tile has every (tile / BIN)-th of its rows, from
b: the tile is eight slabs of rows, whose scores are compared entry by entry, without moving a number across lanes.

Precision: "float32" multiplies the keys in full float32; others multiply codes, bfloat16 ones exactly, summed in
float32. Bias is added, in float32, for the metrics that have one.

Memory: `xla` holds the scores of one tile at a time; the Pallas variants never write a score.

  pallas_gpu   bfloat16, on GPUs with the instructions of compute capability 9.0, for up to 512 entries a row
  pallas_tpu   bfloat16 and float32
  xla          everything

The Pallas variants take databases prepared on their platform, whose tiles are cut to fit their blocks. Under a `jit`
that is compiled for another platform they become `xla`: which one it is, is known only after they were chosen.
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
from modeldiff_jax.kernels.prepared import BIN, Prepared, encode, scores

PLATFORMS = {"pallas_gpu": "cuda", "pallas_tpu": "tpu"}
_DTYPES = {"pallas_gpu": ("bfloat16",), "pallas_tpu": ("bfloat16", "float32")}
_BLOCK = 128


def bin_maxima(
    keys: Float[Array, "q c"],
    weight: Float[Array, " q"],
    p: Prepared,
    precision: str,
    *,
    implementation: str | None = None,
) -> Float[Array, "q bins"]:
    """The largest score of each bin of `p`.

    Args:
      keys: of the queries.
      weight: what each query multiplies biases with.
      p: the database, of a metric that has keys.
      precision: "float32", or that of the codes of `p`.
      implementation: a name of `VARIANTS`, or None for the first that serves the call.
    """
    return run("bin_maxima", VARIANTS, implementation, keys, weight, p, precision)


def biased(s: Float[Array, "q n"], weight: Float[Array, " q"], bias: Float[Array, " n"], metric: str) -> Array:
    """Scores of a tile from its products. Where a row that is none has score 0, that only keeps a bin too many."""
    if not has_bias(metric):
        return s
    # a pass of its own: together with what follows a CPU takes ten times as long
    return lax.optimization_barrier(s + weight[:, None] * bias[None, :])


def has_bias(metric: str) -> bool:
    return metric in ("euclidean", "sqeuclidean")


def reference(
    keys: Float[Array, "q c"], weight: Float[Array, " q"], p: Prepared, precision: str
) -> Float[Array, "q bins"]:
    """The definition: all scores at once."""
    count, height = p.tiles
    assert p.keys is not None
    if precision == "float32" or p.codes is None:
        s = jnp.matmul(keys, p.keys.T, precision=lax.Precision.HIGHEST)
    elif precision == "bfloat16":
        rows = p.codes.codes.astype(jnp.float32)
        queries = encode(keys, precision, rows.shape[1]).codes.astype(jnp.float32)
        s = jnp.matmul(queries, rows.T, precision=lax.Precision.HIGHEST)
    else:
        s = scores(encode(keys, precision), p.codes, keys.shape[1], precision)
    s = biased(s, weight, p.bias, p.metric)
    return jnp.max(s.reshape(keys.shape[0], count, BIN, height // BIN), axis=2).reshape(keys.shape[0], -1)


def xla(keys: Float[Array, "q c"], weight: Float[Array, " q"], p: Prepared, precision: str) -> Float[Array, "q bins"]:
    """Tile by tile."""
    count, height = p.tiles
    per, rows = height // BIN, keys.shape[0]
    coded = p.codes if precision != "float32" else None
    source = p.keys if coded is None else coded.codes
    assert source is not None
    query_codes = None if coded is None else encode(keys, precision, coded.codes.shape[1])

    def tile(maxima: Array, t: Array) -> tuple[Array, None]:
        part = partial(lax.dynamic_slice_in_dim, start_index=t * height, slice_size=height)
        if coded is None or query_codes is None:
            s = jnp.matmul(keys, part(source).T, precision=lax.Precision.HIGHEST)
        else:
            block = coded._replace(codes=part(coded.codes), scale=part(coded.scale))
            s = scores(query_codes, block, keys.shape[1], precision)
        s = biased(s, weight, part(p.bias), p.metric)
        return lax.dynamic_update_slice_in_dim(maxima, jnp.max(s.reshape(rows, BIN, per), axis=1), t * per, 1), None

    return lax.scan(tile, jnp.zeros((rows, count * per), jnp.float32), jnp.arange(count, dtype=jnp.int32))[0]


def check(implementation: str, p: Prepared, precision: str) -> None:
    """Whether a Pallas variant serves databases like `p` on this machine.

    Raises:
      NotImplementedError: it does not, with the reason.
    """
    device_of(PLATFORMS[implementation])
    fits(implementation, p, precision)
    where = {} if isinstance(p.bias, jax.core.Tracer) else {device.platform for device in p.bias.devices()}
    if where and where != {"gpu" if implementation == "pallas_gpu" else "tpu"}:
        raise NotImplementedError(f"the database is on {where}")


def fits(implementation: str, p: Prepared, precision: str) -> dict[str, int]:
    """The sizes of blocks that a Pallas variant takes `p` in.

    Raises:
      NotImplementedError: it has none for such a database, with the reason.
    """
    if precision not in _DTYPES[implementation] or p.keys is None:
        raise NotImplementedError(f"products in {precision} of {p.metric}: only in {_DTYPES[implementation]}")
    if p.tiles[1] % (BIN * _BLOCK):
        raise NotImplementedError("the database was prepared on another platform, in other tiles")
    width = p.keys.shape[1] if precision == "float32" or p.codes is None else p.codes.codes.shape[1]
    return tuned.sizes("bin_maxima", implementation, precision, width)


def pallas_gpu(
    keys: Float[Array, "q c"], weight: Float[Array, " q"], p: Prepared, precision: str
) -> Float[Array, "q bins"]:
    """Matrix products whose results stay in registers until only the maxima of bins are left."""
    check("pallas_gpu", p, precision)
    return _or_xla("pallas_gpu", keys, weight, p, precision)


def pallas_tpu(
    keys: Float[Array, "q c"], weight: Float[Array, " q"], p: Prepared, precision: str
) -> Float[Array, "q bins"]:
    """Matrix products summed up in VMEM, which only the maxima of bins leave."""
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
    """A Pallas variant, whatever this machine is: compiled for its platform alone, or interpreted anywhere."""
    sizes = fits(implementation, p, precision)
    rows = p.keys if precision == "float32" or p.codes is None else p.codes.codes
    assert rows is not None
    queries = keys if precision == "float32" else encode(keys, precision, rows.shape[1]).codes
    bias = p.bias if has_bias(p.metric) else None
    # Importing Pallas takes a second, which no other platform needs to spend.
    platform = import_module(f"{__name__}.{implementation.removeprefix('pallas_')}")
    return platform.fused_bin_maxima(queries, rows, bias, weight, count=p.tiles[0], interpret=interpret, **sizes)


VARIANTS: dict[str, Callable[[Array, Array, Prepared, str], Array]] = {
    "pallas_gpu": pallas_gpu,
    "pallas_tpu": pallas_tpu,
    "xla": xla,
    "reference": reference,
}
