"""Distances between all vectors of an array and all vectors of another: (..., N, C), (..., N', C) -> (..., N, N').

Without a second array, they are the distances within the first, such as a representational dissimilarity matrix (RDM).

Metrics, types, bounds, the zero rule and the NaN rule are those of `paired`, and so is the accuracy: each distance
equals that of `paired` for the same pair, to a relative 1e-5. Cosine, correlation and the two euclidean metrics
come from one matrix product of centred or unit vectors, in full float32 whatever `jax_default_matmul_precision` says.
The absolute error of such a product is harmless for large distances and ruins small ones, so pairs below `_NEAR` are
computed again as in `paired`, from the difference of the two vectors, in small tiles. Data whose vectors are mostly
near each other therefore take up to the time of the other metrics, which are computed in tiles entirely.

Bounds: without `b` the result is exactly symmetric (except for kl) and its diagonal is 0, or NaN for vectors with NaN.

Gradients: those of `paired`, in tiles, each recomputed on the backward pass rather than stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.dispatch import run
from modeldiff_jax.kernels.inputs import ArrayInput, as_float32
from modeldiff_jax.kernels.paired import METRICS
from modeldiff_jax.kernels.vectors import centred, unit

ASYMMETRIC = ("kl",)
_NEAR = 0.05
"""Pairs whose squared distance is below this share of the sum of their squared lengths are computed again.

The error of the matrix product is about 2e-7 of that sum.
"""
_LEAST_SQUARE = 1e-30
"""Squared lengths below it, or above its inverse, have lost digits."""


def pairwise_distances(
    a: ArrayInput,
    b: ArrayInput | None = None,
    metric: str = "cosine",
    *,
    condensed: bool = False,
    implementation: str | None = None,
) -> Float[Array, "*models n k"] | Float[Array, "*models p"]:
    """Returns the distance between each vector of `a` and each of `b`, or of `a` if there is no `b`.

    Args:
      a: (..., N, C), real numbers. Each index of the leading axes, a model for example, gives another matrix.
      b: (..., N', C), with the leading axes of `a`; or None for `a` itself.
      metric: as in `paired_distances`.
      condensed: whether to return only the N (N - 1) / 2 distances above the diagonal, row by row (scipy's order).
        Only without `b`, and not for kl, which has two distances per pair.
      implementation: "xla", "reference", or None for the first that serves the call.

    Returns:
      (..., N, N'), or (..., N (N - 1) / 2) if condensed; float32.

    Raises:
      InvalidInputError: shapes do not fit, a type is not real, a name is unknown, or this cannot be condensed.
    """
    where = "pairwise_distances"
    left = as_float32(a, f"{where}: a")
    right = None if b is None else as_float32(b, f"{where}: b")
    others = left if right is None else right
    if left.ndim < 2 or (left.shape[:-2], left.shape[-1]) != (others.shape[:-2], others.shape[-1]):
        raise InvalidInputError(
            "`a` is (..., N, C) and `b` is (..., N', C)",
            got=f"{left.shape}" if right is None else f"{left.shape} and {right.shape}",
            where=where,
        )
    if metric not in METRICS:
        raise InvalidInputError(f"`metric` is one of {', '.join(METRICS)}", got=repr(metric), where=where)
    if condensed and (right is not None or metric in ASYMMETRIC):
        raise InvalidInputError(
            "Distances within one array, the same in both directions, can be condensed",
            got=f"metric {metric!r}" if right is None else "two arrays",
            where=where,
        )
    distances = run(where, VARIANTS, implementation, left, right, metric)
    return condense(distances) if condensed else distances


@partial(jax.jit, static_argnames="metric")
@jax.named_scope("pairwise_distances.reference")
def reference(
    a: Float[Array, "*models n c"], b: Float[Array, "*models k c"] | None, metric: str
) -> Float[Array, "*models n k"]:
    """Computes one pair after another: the definition."""
    distance = METRICS[metric]

    def matrix(model: tuple[Array, Array]) -> Array:
        return lax.map(lambda x: lax.map(lambda y: distance(x, y), model[1]), model[0])

    left, right = _per_model(a), _per_model(a if b is None else b)
    distances = lax.map(matrix, (left, right))
    if b is None:
        number = jnp.arange(a.shape[-2], dtype=jnp.int32)
        i, j = number[None, :, None], number[None, None, :]
        if metric not in ASYMMETRIC:
            distances = jnp.where(i <= j, distances, jnp.swapaxes(distances, 1, 2))
        distances = jnp.where((i == j) & ~jnp.isnan(distances), 0, distances)
    return distances.reshape(*a.shape[:-1], right.shape[1])


@partial(jax.jit, static_argnames="metric")
@jax.named_scope("pairwise_distances.xla")
def xla(
    a: Float[Array, "*models n c"], b: Float[Array, "*models k c"] | None, metric: str
) -> Float[Array, "*models n k"]:
    """Computes a matrix product where the metric has one, else tiles."""
    left, right = _per_model(a), None if b is None else _per_model(b)
    columns = (left if right is None else right).shape[1]
    if min(left.shape[0], left.shape[1], columns) == 0:
        return jnp.zeros((*a.shape[:-1], columns), jnp.float32)
    distances = _by_product(left, right, metric) if metric in _FACTORS else _by_tiles(left, right, metric)
    return distances.reshape(*a.shape[:-1], columns)


VARIANTS: dict[str, Callable[[Array, Array | None, str], Array]] = {"xla": xla, "reference": reference}


def _per_model(x: Float[Array, "*models n c"]) -> Float[Array, "m n c"]:
    return x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])


# Condensed form


def triangle(k: Int[Array, "*p"], n: int) -> tuple[Int[Array, "*p"], Int[Array, "*p"]]:
    """Returns row and column of the `k`-th pair of `n` items, in scipy's order."""
    from_end = n * (n - 1) // 2 - 1 - k  # counted from the end, where the square root is off by at most one for any n
    row = jnp.floor((jnp.sqrt(8.0 * from_end.astype(jnp.float32) + 1) - 1) / 2).astype(jnp.int32)
    row = jnp.where(row * (row + 1) // 2 > from_end, row - 1, row)
    row = jnp.where((row + 1) * (row + 2) // 2 <= from_end, row + 1, row)
    return n - 2 - row, n - 1 - (from_end - row * (row + 1) // 2)


@jax.jit
def condense(distances: Float[Array, "*models n n"]) -> Float[Array, "*models p"]:
    """Returns the entries above the diagonal, row by row."""
    n = distances.shape[-1]
    rows, columns = triangle(jnp.arange(n * (n - 1) // 2, dtype=jnp.int32), n)
    return distances[..., rows, columns]


# Tiles: any metric, by its definition

_TILE_ENTRIES = 2**19
"""Entries of the vectors that a CPU computes with at once."""
_SMALL_TILE_ENTRIES = 2**16
"""Likewise, where only some pairs of a tile are needed."""


def _tile(rows: int, columns: int | None, width: int, entries: int) -> tuple[int, int]:
    """Returns the size of a tile that computes with about this many entries; a square one if `columns` is None."""
    side = max(1, math.isqrt(entries // width))
    if columns is None:
        return min(side, rows), min(side, rows)
    rows = min(rows, max(side, entries // (width * columns)))
    return rows, min(columns, max(1, entries // (width * rows)))


def _by_tiles(a: Float[Array, "m n c"], b: Float[Array, "m k c"] | None, metric: str) -> Float[Array, "m n k"]:
    columns = (a if b is None else b).shape[1]

    def filled(entries: int, a: Array, b: Array | None) -> Array:
        tile = _tile(a.shape[1], None if b is None else columns, a.shape[-1], entries)
        down, across = -(-a.shape[1] // tile[0]), -(-columns // tile[1])
        half = b is None and metric not in ASYMMETRIC  # the tiles on and above the diagonal
        per_model = down * (down + 1) // 2 if half else down * across

        def position(number: Array) -> tuple[Array, Array, Array]:
            if half:
                row, column = triangle(number % per_model, down + 1)
                return number // per_model, row, column - 1
            return number // per_model, number % per_model // across, number % across

        empty = jnp.zeros((a.shape[0], a.shape[1], columns), jnp.float32)
        return _fill(empty, a, b, metric, tile, position, a.shape[0] * per_model)

    return lax.platform_dependent(
        a, b, cpu=partial(filled, _TILE_ENTRIES), default=partial(filled, 2**9 * _TILE_ENTRIES)
    )


def _fill(
    distances: Float[Array, "m n k"],
    a: Float[Array, "m n c"],
    b: Float[Array, "m k c"] | None,
    metric: str,
    tile: tuple[int, int],
    position: Callable[[Array], tuple[Array, Array, Array]],
    count: Int[Array, ""] | int,
) -> Float[Array, "m n k"]:
    """Computes `count` tiles of `distances`; `position` returns the model, tile row and tile column of each."""
    distance = METRICS[metric]
    rows, columns = tile
    right = a if b is None else b
    mirrored = b is None and metric not in ASYMMETRIC

    @jax.checkpoint
    def compute(a: Array, b: Array, model: Array, row: Array, column: Array) -> Array:
        x = _block(a, (model, row), (1, rows))[0]
        y = _block(b, (model, column), (1, columns))[0]
        return jax.vmap(lambda x: jax.vmap(lambda y: distance(x, y))(y))(x)

    def fill_tile(number: Array, distances: Array) -> Array:
        model, row, column = position(number.astype(jnp.int32))
        # The last tile of a row or column is shifted back to fit, and overlaps the one before.
        row = jnp.minimum(row * rows, a.shape[1] - rows)
        column = jnp.minimum(column * columns, right.shape[1] - columns)
        values = compute(a, right, model, row, column)[None]
        if b is not None:
            return lax.dynamic_update_slice(distances, values, (model, row, column))
        i = row + jnp.arange(rows, dtype=jnp.int32)[None, :, None]
        j = column + jnp.arange(columns, dtype=jnp.int32)[None, None, :]
        values = jnp.where((i == j) & ~jnp.isnan(values), 0, values)
        if not mirrored:
            return lax.dynamic_update_slice(distances, values, (model, row, column))
        upper = i <= j
        for corner in ((model, row, column), (model, column, row)):  # above the diagonal, then the mirror image
            old = lax.dynamic_slice(distances, corner, values.shape)
            distances = lax.dynamic_update_slice(distances, jnp.where(upper, values, old), corner)
            values, upper = jnp.swapaxes(values, 1, 2), jnp.swapaxes(upper, 1, 2)
        return distances

    # A count known while tracing makes a loop that can be differentiated in reverse.
    first = 0 if isinstance(count, int) else jnp.int32(0)
    return lax.fori_loop(first, count, fill_tile, distances)


def _block(x: Array, corner: tuple[Array, Array], sizes: tuple[int, int]) -> Array:
    return lax.dynamic_slice(x, (*corner, jnp.int32(0)), (*sizes, x.shape[-1]))


# Products: metrics that are a function of inner products


class _Factor(NamedTuple):
    """One side of the matrix product: vectors, their squared lengths, and whether each has no direction."""

    x: Float[Array, "m n c"]
    square: Float[Array, "m n"]
    zero: Bool[Array, "m n"]


def _minus_common_mean(*sides: Array) -> tuple[_Factor, ...]:
    """Subtracts the mean of all vectors of both sides, so a common offset adds nothing to the product's error."""
    count = sum(x.shape[1] for x in sides)
    mean = sum(jnp.sum(x, axis=1, keepdims=True) for x in sides) * (1 / count)
    mean = jnp.where(jnp.isfinite(mean), mean, 0)  # with NaN or an infinity only the speed depends on it
    return tuple(_factor(x - mean, jnp.zeros(x.shape[:2], bool)) for x in sides)


def _unit(*sides: Array) -> tuple[_Factor, ...]:
    return tuple(_factor(*unit(x)) for x in sides)


def _centred_unit(*sides: Array) -> tuple[_Factor, ...]:
    return _unit(*(centred(x) for x in sides))


def _factor(x: Array, zero: Array) -> _Factor:
    return _Factor(x, jnp.sum(x * x, axis=-1), zero)


_FACTORS: dict[str, Callable[..., tuple[_Factor, ...]]] = {
    "correlation": _centred_unit,
    "cosine": _unit,
    "euclidean": _minus_common_mean,
    "sqeuclidean": _minus_common_mean,
}


_Sides: TypeAlias = tuple[Array, Array | None]


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _by_product(a: Float[Array, "m n c"], b: Float[Array, "m k c"] | None, metric: str) -> Float[Array, "m n k"]:
    factors = _FACTORS[metric](a) if b is None else _FACTORS[metric](a, b)
    left, right = factors[0], factors[-1]
    lengths = left.square[:, :, None] + right.square[:, None, :]
    squares = lengths - 2 * _products(left.x, None if b is None else right.x)
    accurate = (squares > _NEAR * lengths) & (lengths > _LEAST_SQUARE) & (lengths < 1 / _LEAST_SQUARE)
    distances = jnp.maximum(squares, 0)
    if metric == "euclidean":
        distances = jnp.sqrt(distances)
    elif metric in ("cosine", "correlation"):
        one, both = left.zero[:, :, None] ^ right.zero[:, None, :], left.zero[:, :, None] & right.zero[:, None, :]
        ruled = (one | both) & ~jnp.isnan(squares)
        distances = jnp.where(ruled, one.astype(jnp.float32), jnp.minimum(distances / 2, 2))
        accurate = accurate | ruled
    if b is None:
        diagonal = jnp.eye(a.shape[1], dtype=bool)[None] & (left.square < 1 / _LEAST_SQUARE)[:, :, None]
        distances, accurate = jnp.where(diagonal, 0, distances), accurate | diagonal
    return _recompute(distances, ~accurate, a, b, metric)


@_by_product.defjvp
def _differentiate_by_tiles(metric: str, primals: _Sides, tangents: _Sides) -> tuple[Array, Array]:
    tangent = jax.jvp(lambda a, b: _by_tiles(a, b, metric), primals, tangents)[1]
    a, b = primals
    return _by_product(a, b, metric), tangent


def _recompute(distances: Array, inaccurate: Array, a: Array, b: Array | None, metric: str) -> Array:
    """Recomputes the tiles that hold inaccurate distances, by the definition."""
    models, height, width = inaccurate.shape
    rows, columns = tile = _tile(height, None if b is None else width, a.shape[-1], _SMALL_TILE_ENTRIES)
    down, across = -(-height // rows), -(-width // columns)

    def list_tiles(inaccurate: Array) -> tuple[Array, Array]:
        ends = (0, 0), (0, down * rows - height), (0, across * columns - width)
        tiles = jnp.pad(inaccurate, ends).reshape(-1, down, rows, across, columns).any((2, 4))
        if b is None:
            tiles = jnp.triu(tiles)
        numbers = jnp.nonzero(tiles.ravel(), size=tiles.size, fill_value=0)[0].astype(jnp.int32)
        return numbers, jnp.sum(tiles, dtype=jnp.int32)

    def no_tiles(inaccurate: Array) -> tuple[Array, Array]:
        return jnp.zeros(models * down * across, jnp.int32), jnp.int32(0)

    numbers, count = lax.cond(inaccurate.any(), list_tiles, no_tiles, inaccurate)

    def position(i: Array) -> tuple[Array, Array, Array]:
        number = numbers[i]
        return number // (down * across), number % (down * across) // across, number % across

    return _fill(distances, a, b, metric, tile, position, count)


_PARTS = 3
_LEAST_ROWS_IN_PARTS = 384


def _products(x: Float[Array, "m n c"], y: Float[Array, "m k c"] | None) -> Float[Array, "m n k"]:
    """Returns inner products, exactly symmetric without `y`."""
    if y is not None:
        return _product(x, y)
    if x.shape[1] < _LEAST_ROWS_IN_PARTS:
        return _symmetric(_product(x, x))
    return lax.platform_dependent(x, cpu=_upper_parts, default=lambda x: _symmetric(_product(x, x)))


def _product(x: Array, y: Array) -> Array:
    if x.shape[0] == 1:  # on a CPU one product is faster than a batch of one
        return jnp.matmul(x[0], y[0].T, precision=lax.Precision.HIGHEST)[None]
    return jnp.matmul(x, jnp.swapaxes(y, 1, 2), precision=lax.Precision.HIGHEST)


def _symmetric(products: Array) -> Array:
    return (products + jnp.swapaxes(products, 1, 2)) / 2  # (i, j) and (j, i) may be summed in different orders


def _upper_parts(x: Array) -> Array:
    """Computes the blocks on and above the diagonal, two thirds of all, and transposes them into the others."""
    cuts = [round(x.shape[1] * part / _PARTS) for part in range(_PARTS + 1)]
    parts: dict[tuple[int, int], Array] = {}
    for i in range(_PARTS):
        wide = _product(x[:, cuts[i] : cuts[i + 1]], x[:, cuts[i] :])
        for j in range(i, _PARTS):
            part = wide[:, :, cuts[j] - cuts[i] : cuts[j + 1] - cuts[i]]
            parts[i, j] = _symmetric(part) if i == j else part
            parts[j, i] = jnp.swapaxes(parts[i, j], 1, 2)
    return jnp.concatenate([jnp.concatenate([parts[i, j] for j in range(_PARTS)], 2) for i in range(_PARTS)], 1)
