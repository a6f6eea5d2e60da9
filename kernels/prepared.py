"""Databases prepared for repeated search: keys whose inner products rank the rows, and low-precision codes of them.

For every metric that a matrix product can rank, the score of a row is `query . key + weight * bias`, higher for nearer
rows. The keys are unit rows for cosine, centred unit rows for correlation, the rows themselves for dot, and for
euclidean the rows minus their common mean, with minus half the squared norm as bias. Keys of dot and euclidean are
scaled by one power of two. Other metrics (cityblock, chebyshev, hamming, jensenshannon, kl) have no keys.

`precision` is that of the first stage over all rows only. Results do not depend on it: each one is certified against
the error of the codes, or searched for again in float32.

  float32     the keys themselves
  bfloat16    half the bytes, and faster on devices that multiply bfloat16 faster
  int8        a quarter of the bytes, with a scale per row
  sign        one bit per entry, with a scale per row; certifies little unless all entries have one magnitude
  certified   bfloat16 on devices that multiply it faster, else float32

NaN rule: a row with NaN or an infinity has no key and ranks last.

Padding: outside `jit`, databases of up to 16384 rows are padded with rows of zeros to one of a few sizes, so that
databases of nearby sizes share compiled programs (see `buckets`). Padding is never part of a result.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import GetAttrKey
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt32

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.buckets import row_bucket
from modeldiff_jax.kernels.inputs import ArrayInput, as_float32
from modeldiff_jax.kernels.paired import METRICS as PAIRED
from modeldiff_jax.kernels.vectors import centred, power_of_two, unit

BY_PRODUCT = ("correlation", "cosine", "dot", "euclidean", "sqeuclidean")
"""Metrics that a matrix product ranks."""
METRICS = (*sorted({*PAIRED, "dot"}),)
PRECISIONS = ("float32", "certified", "bfloat16", "int8", "sign")
BIN = 8
"""Rows per bin. Filters keep the largest score of each bin; keys are padded to whole bins."""
BLOCK_BINS = 128
"""Bins that accelerators process at once, or a multiple of their number."""
_TILE = 1024
"""Largest number of rows of a tile."""
_CPU_ROWS = 32
"""Tiles on a CPU are a multiple of this many rows, so they hold whole bins of any size up to this."""
_LANES = {"cpu": 1, "tpu": 128}
"""Number of entries a device loads at once; bfloat16 codes are padded to multiples of it. Other devices load 64."""


class Codes(NamedTuple):
    """Keys in low precision, with |key - decoded key| <= residual for every row."""

    codes: Shaped[Array, "padded width"]
    scale: Float[Array, " padded"]
    residual: Float[Array, ""]


@dataclass(frozen=True)
class Prepared:
    """Result of `prepare`: a pytree, which passes through `jit`, `shard_map` and `device_put` like any other.

    Attributes:
      padded_rows: (P, C) float32, the N rows and P - N rows of zeros.
      n: N as an array, so that programs do not depend on its value.
      keys: (padded, C) float32, or None for metrics without keys; `padded` is a whole number of tiles.
      bias: (padded,) float32, -inf for padding and for rows with NaN or an infinity.
      centre: (C,) mean subtracted from rows and queries; zero except for euclidean metrics.
      scale: power of two that keys of dot and euclidean metrics are divided by.
      radius: largest norm of a key.
      codes: keys in low precision, or None for float32.
      metric: name of the metric.
      precision: precision of the first stage.
      count: N as a number, for checks.
    """

    padded_rows: Float[Array, "*b p c"]
    n: Int[Array, "*b"]
    keys: Float[Array, "*b padded c"] | None
    bias: Float[Array, "*b padded"]
    centre: Float[Array, "*b c"]
    scale: Float[Array, "*b"]
    radius: Float[Array, "*b"]
    codes: Codes | None
    metric: str
    precision: str
    count: int

    @property
    def rows(self) -> Float[Array, "*b n c"]:
        """The N rows, in float32."""
        return lax.slice_in_dim(self.padded_rows, 0, self.count, axis=-2)

    @property
    def norms(self) -> Float[Array, "*b n"]:
        """Euclidean norms of the N rows."""
        return _norms(self.rows)

    @property
    def tiles(self) -> tuple[int, int]:
        """Number of tiles, and rows per tile."""
        number = -(-self.padded_rows.shape[-2] // _TILE)
        return number, self.bias.shape[-1] // number

    def with_padding_as_rows(self) -> Prepared:
        """Counts padding as rows. Databases padded to one size then have one structure, and share compiled programs."""
        return dataclasses.replace(self, count=self.padded_rows.shape[-2])


_STATIC = ("metric", "precision", "count")
_LEAVES = tuple(field.name for field in dataclasses.fields(Prepared) if field.name not in _STATIC)


def _flatten(p: Prepared) -> tuple[tuple[tuple[GetAttrKey, Any], ...], tuple[Any, ...]]:
    leaves = tuple((GetAttrKey(name), getattr(p, name)) for name in _LEAVES)
    return leaves, tuple(getattr(p, name) for name in _STATIC)


def _unflatten(static: tuple[Any, ...], leaves: Iterable[Any]) -> Prepared:
    """Rebuilds a database without the checks of its constructor, since jax puts other objects in place of arrays."""
    p = object.__new__(Prepared)
    for name, value in zip((*_LEAVES, *_STATIC), (*leaves, *static), strict=True):
        object.__setattr__(p, name, value)
    return p


jax.tree_util.register_pytree_with_keys(Prepared, _flatten, _unflatten)


def prepare(database: ArrayInput, metric: str = "cosine", precision: str = "float32") -> Prepared:
    """Prepares a database for `top_k` and `self_join`.

    Args:
      database: (N, C), real numbers, N and C at least 1.
      metric: "cosine", "correlation", "dot", "euclidean", "sqeuclidean", or another metric of `paired_distances`.
      precision: "float32", "certified", "bfloat16", "int8" or "sign"; of the first stage only, not of results.

    Returns:
      The rows in float32, their keys and, for a lower precision, codes of the keys.

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
    if metric not in BY_PRODUCT:
        precision = "float32"
    count = rows.shape[0]
    n = jax.device_put(np.int32(count))
    if not isinstance(rows, jax.core.Tracer) and row_bucket(count) > count:
        rows = _padded(rows, row_bucket(count))
    return dataclasses.replace(_prepare(rows, n, metric, precision, jax.default_backend()), count=count)


def _multiplies_bfloat16_faster() -> bool:
    return jax.default_backend() != "cpu" or _cpu_multiplies_bfloat16_faster()


@cache
def _cpu_multiplies_bfloat16_faster() -> bool:
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and re.search(r"\b(avx512_bf16|amx_bf16)\b", cpu.read_text()) is not None


def _rows_per_tile(rows: int, tiles: int, backend: str) -> int:
    """Returns the rows of each of nearly equal tiles: whole bins, on accelerators whole blocks of bins."""
    multiple = _CPU_ROWS if backend == "cpu" else BIN * BLOCK_BINS
    return -(-rows // (tiles * multiple)) * multiple


@jax.jit
def _norms(rows: Float[Array, "*rows c"]) -> Float[Array, "*rows"]:
    scale = power_of_two(rows)
    return jnp.sqrt(jnp.sum((rows * (1 / scale)) ** 2, axis=-1)) * scale[..., 0]


@partial(jax.jit, static_argnames="size")
def _padded(rows: Float[Array, "n c"], size: int) -> Float[Array, "p c"]:
    return jnp.pad(rows, ((0, size - rows.shape[0]), (0, 0)))


@partial(jax.jit, static_argnames=("metric", "precision", "backend"))
@jax.named_scope("prepare")
def _prepare(rows: Float[Array, "p c"], n: Int[Array, ""], metric: str, precision: str, backend: str) -> Prepared:
    """Prepares the first `n` rows. Only `padded_rows` has derivatives: everything else only ranks."""
    total, width = rows.shape
    constant = lax.stop_gradient(rows)
    centre, scale, radius = jnp.zeros(width, jnp.float32), jnp.ones((), jnp.float32), jnp.ones((), jnp.float32)
    if metric not in BY_PRODUCT:
        bias = jnp.zeros(total, jnp.float32)
        return Prepared(rows, n, None, bias, centre, scale, radius, None, metric, precision, total)
    finite = jnp.all(jnp.isfinite(constant), axis=1) & (jnp.arange(total, dtype=jnp.int32) < n)
    clean = jnp.where(finite[:, None], constant, 0)
    if metric in ("euclidean", "sqeuclidean"):
        centre = jnp.sum(clean / jnp.maximum(1, jnp.sum(finite)).astype(jnp.float32), axis=0)
    if metric in ("cosine", "correlation"):
        keys = direction(clean, metric)
    else:
        keys = jnp.where(finite[:, None], clean - centre[None, :], 0)
        scale = power_of_two(keys.reshape(1, -1))[0, 0]
        keys = keys * (1 / scale)
    squares = jnp.sum(keys * keys, axis=1)
    bias = -squares / 2 if metric in ("euclidean", "sqeuclidean") else jnp.zeros(total, jnp.float32)
    tiles = -(-total // _TILE)
    padding = tiles * _rows_per_tile(total, tiles, backend) - total
    keys = jnp.pad(keys, ((0, padding), (0, 0)))
    bias = jnp.pad(jnp.where(finite, bias, -jnp.inf), (0, padding), constant_values=-jnp.inf)
    lanes = _LANES.get(backend, 64)
    codes = None if precision == "float32" else encode(keys, precision, -(-keys.shape[1] // lanes) * lanes)
    radius = jnp.sqrt(jnp.max(squares))
    return Prepared(rows, n, keys, bias, centre, scale, radius, codes, metric, precision, total)


def direction(x: Float[Array, "b c"], metric: str) -> Float[Array, "b c"]:
    """Returns unit vectors for cosine, centred unit vectors for correlation; zero for vectors without a direction."""
    return unit(centred(x) if metric == "correlation" else x)[0]


def encode(keys: Float[Array, "b c"], precision: str, width: int | None = None) -> Codes:
    """Encodes keys of rows or queries in low precision; bfloat16 codes are padded with zeros to `width` entries."""
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
        scale = jnp.mean(jnp.abs(keys), axis=1)  # minimises the error of scale * sign
        codes = _packed(keys > 0)
        decoded = jnp.where(keys > 0, 1.0, -1.0).astype(jnp.float32) * scale[:, None]
    residual = jnp.sqrt(jnp.max(jnp.sum((keys - decoded) ** 2, axis=1)))
    return Codes(codes, scale, residual)


def _packed(bits: Bool[Array, "b c"]) -> UInt32[Array, "b words"]:
    padded = jnp.pad(bits, ((0, 0), (0, -bits.shape[1] % 32))).reshape(bits.shape[0], -1, 32)
    return jnp.sum(
        padded.astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)[None, None, :], axis=2, dtype=jnp.uint32
    )


def scores(queries: Codes, database: Codes, width: int, precision: str) -> Float[Array, "q n"]:
    """Returns inner products of the decoded vectors, summed in float32 or in integers."""
    if precision == "bfloat16":
        return jnp.matmul(queries.codes, database.codes.T, preferred_element_type=jnp.float32)
    if precision == "int8":
        products = jnp.matmul(queries.codes, database.codes.T, preferred_element_type=jnp.int32)
    else:
        different = lax.population_count(queries.codes[:, None, :] ^ database.codes[None, :, :])
        products = width - 2 * jnp.sum(different, axis=2, dtype=jnp.int32)
    return products.astype(jnp.float32) * queries.scale[:, None] * database.scale[None, :]
