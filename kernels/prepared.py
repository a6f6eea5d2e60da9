"""A database made ready to be searched often: keys whose inner products rank its rows, and copies of low precision.

Every metric that a matrix product can rank is one here: the score of a row is `query . key + weight * bias`, higher for
nearer rows. Cosine's keys are the unit rows, correlation's those of the rows less their means, dot's the rows, and
euclidean's the rows less their common mean, with minus half the squared norm as bias. Keys of dot and euclidean are
scaled by one power of two. Other metrics (cityblock, chebyshev, hamming, jensenshannon, kl) have no keys.

Precision is that of the first look at all rows; what is returned is the same for all, because each row of a result is
proven from what rounding the keys lost, or found anew in float32:

  float32     the keys themselves
  bfloat16    half the bytes, and faster where a device multiplies bfloat16 faster
  int8        a quarter, with a scale for each row
  sign        one bit an entry, with a scale for each row; proves little unless the entries are of one magnitude
  certified   bfloat16 where this device multiplies it faster, else float32

NaN rule: a row with NaN or an infinity has no key and ranks last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped, UInt32

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.inputs import ArrayInput, as_float32, power_of_two
from modeldiff_jax.kernels.paired import METRICS as PAIRED

BY_PRODUCT = ("correlation", "cosine", "dot", "euclidean", "sqeuclidean")
METRICS = (*sorted({*PAIRED, "dot"}),)
PRECISIONS = ("float32", "certified", "bfloat16", "int8", "sign")
BIN = 8
"""Rows whose scores are reduced to their largest one; keys are padded to whole bins."""
_TILE = 1024
_WHOLE = 32
"""Tiles are whole bins of any size up to this."""
_BLOCK = 128
"""Bins that accelerators take at once, or a divisor of it."""
_LANES = {"cpu": 1, "tpu": 128}
"""Entries of a row of bfloat16 that a device fetches at once, of any other 64; codes are padded to them."""


class Codes(NamedTuple):
    """Keys in few bits, and what that lost: |key - decoded| <= residual for every row."""

    codes: Shaped[Array, "padded width"]
    scale: Float[Array, " padded"]
    residual: Float[Array, ""]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prepared:
    """What `prepare` makes. A pytree: goes through `jit`, `shard_map` and on to a device like any other."""

    rows: Float[Array, "n c"]
    norms: Float[Array, " n"]
    keys: Float[Array, "padded c"] | None
    bias: Float[Array, " padded"]
    centre: Float[Array, " c"]
    scale: Float[Array, ""]
    radius: Float[Array, ""]
    codes: Codes | None
    metric: str = field(metadata={"static": True})
    precision: str = field(metadata={"static": True})

    @property
    def tiles(self) -> tuple[int, int]:
        """How many tiles the rows are cut in, and how many rows each has."""
        count = -(-self.rows.shape[0] // _TILE)
        return count, self.bias.shape[0] // count


def prepare(database: ArrayInput, metric: str = "cosine", precision: str = "float32") -> Prepared:
    """Makes a database ready for `top_k` and `self_join`.

    Args:
      database: (N, C), real numbers, N and C at least 1.
      metric: "cosine", "correlation", "dot", "euclidean", "sqeuclidean", or another of `paired_distances`.
      precision: "float32", "certified", "bfloat16", "int8" or "sign"; of the first look only, not of the result.

    Returns:
      The rows in float32, their norms, keys, and codes of the keys where the precision asks for them.

    Raises:
      InvalidInputError: not a matrix, no rows, or an unknown name.
    """
    rows = as_float32(database, "prepare: database")
    if rows.ndim != 2 or rows.shape[0] == 0:
        raise InvalidInputError("`database` is (N, C) with N at least 1", got=f"{rows.shape}", where="prepare")
    for name, value, known in (("metric", metric, METRICS), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise InvalidInputError(f"`{name}` is one of {', '.join(known)}", got=repr(value), where="prepare")
    if precision == "certified":
        precision = "bfloat16" if _multiplies_bfloat16_faster() else "float32"
    return _prepare(rows, metric, precision if metric in BY_PRODUCT else "float32", jax.default_backend())


def _multiplies_bfloat16_faster() -> bool:
    if jax.default_backend() != "cpu":
        return True
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and re.search(r"\b(avx512_bf16|amx_bf16)\b", cpu.read_text()) is not None


def _height(n: int, count: int, backend: str) -> int:
    """How many rows each of `count` nearly equal tiles of `n` rows has: whole bins, on accelerators whole blocks."""
    unit = _WHOLE if backend == "cpu" else BIN * _BLOCK
    return -(-n // (count * unit)) * unit


@partial(jax.jit, static_argnames=("metric", "precision", "backend"))
@jax.named_scope("prepare")
def _prepare(rows: Float[Array, "n c"], metric: str, precision: str, backend: str) -> Prepared:
    n, width = rows.shape
    finite = jnp.all(jnp.isfinite(rows), axis=1)
    clean = jnp.where(finite[:, None], rows, 0)
    size = power_of_two(rows)
    norms = jnp.sqrt(jnp.sum((rows * (1 / size)) ** 2, axis=1)) * size[:, 0]
    centre, scale, one = jnp.zeros(width, jnp.float32), jnp.ones((), jnp.float32), jnp.ones((), jnp.float32)
    if metric not in BY_PRODUCT:
        return Prepared(rows, norms, None, jnp.zeros(n, jnp.float32), centre, scale, one, None, metric, precision)
    if metric in ("euclidean", "sqeuclidean"):
        centre = jnp.sum(clean / jnp.maximum(1, jnp.sum(finite)).astype(jnp.float32), axis=0)
    if metric in ("cosine", "correlation"):
        keys = unit(clean, metric)[0]
    else:
        keys = jnp.where(finite[:, None], clean - centre[None, :], 0)
        scale = power_of_two(keys.reshape(1, -1))[0, 0]
        keys = keys * (1 / scale)
    squares = jnp.sum(keys * keys, axis=1)
    bias = -squares / 2 if metric in ("euclidean", "sqeuclidean") else jnp.zeros(n, jnp.float32)
    count = -(-n // _TILE)
    padding = count * _height(n, count, backend) - n
    keys = jnp.pad(keys, ((0, padding), (0, 0)))
    bias = jnp.pad(jnp.where(finite, bias, -jnp.inf), (0, padding), constant_values=-jnp.inf)
    lanes = _LANES.get(backend, 64)
    codes = None if precision == "float32" else encode(keys, precision, -(-keys.shape[1] // lanes) * lanes)
    return Prepared(rows, norms, keys, bias, centre, scale, jnp.sqrt(jnp.max(squares)), codes, metric, precision)


def unit(x: Float[Array, "b c"], metric: str) -> tuple[Float[Array, "b c"], Bool[Array, " b"]]:
    """Unit vectors, for correlation after subtracting each vector's mean, and which vectors have none."""
    x = x * (1 / power_of_two(x))
    if metric == "correlation":
        constant = jnp.max(x, axis=1) == jnp.min(x, axis=1)
        x = x - jnp.mean(x, axis=1, keepdims=True)
        x = jnp.where(constant[:, None], 0, x - jnp.mean(x, axis=1, keepdims=True))
        x = x * (1 / power_of_two(x))
    square = jnp.sum(x * x, axis=1)
    return jnp.where((square > 0)[:, None], x / jnp.sqrt(jnp.where(square > 0, square, 1))[:, None], 0), square == 0


def encode(keys: Float[Array, "b c"], precision: str, width: int | None = None) -> Codes:
    """Keys, or queries, in few bits; those of bfloat16 with zeros up to `width`."""
    scale = jnp.ones(keys.shape[0], jnp.float32)
    codes: Array
    if precision == "bfloat16":
        codes = keys.astype(jnp.bfloat16)
        decoded = codes.astype(jnp.float32)
        codes = jnp.pad(codes, ((0, 0), (0, (width or keys.shape[1]) - keys.shape[1])))
    elif precision == "int8":
        scale = jnp.maximum(jnp.max(jnp.abs(keys), axis=1), 1e-30) / 127
        codes = jnp.round(keys / scale[:, None]).astype(jnp.int8)
        decoded = codes.astype(jnp.float32) * scale[:, None]
    else:
        scale = jnp.mean(jnp.abs(keys), axis=1)  # the nearest multiple of the signs
        codes = _pack(keys > 0)
        decoded = jnp.where(keys > 0, 1.0, -1.0) * scale[:, None]
    lost = jnp.sqrt(jnp.max(jnp.sum((keys - decoded) ** 2, axis=1)))
    return Codes(codes, scale, lost)


def _pack(bits: Bool[Array, "b c"]) -> UInt32[Array, "b words"]:
    padded = jnp.pad(bits, ((0, 0), (0, -bits.shape[1] % 32))).reshape(bits.shape[0], -1, 32)
    return jnp.sum(
        padded.astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)[None, None, :], axis=2, dtype=jnp.uint32
    )


def scores(queries: Codes, database: Codes, width: int, precision: str) -> Float[Array, "q n"]:
    """Inner products of what the codes stand for; in whole numbers, or float32."""
    if precision == "bfloat16":
        return jnp.matmul(queries.codes, database.codes.T, preferred_element_type=jnp.float32)
    if precision == "int8":
        whole = jnp.matmul(queries.codes, database.codes.T, preferred_element_type=jnp.int32)
    else:
        differ = jax.lax.population_count(queries.codes[:, None, :] ^ database.codes[None, :, :])
        whole = width - 2 * jnp.sum(differ.astype(jnp.int32), axis=2)
    return whole.astype(jnp.float32) * queries.scale[:, None] * database.scale[None, :]
