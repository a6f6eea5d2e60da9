"""Distances of every vector of an array to every vector of another, or to every other of its own: (..., N, C) and
(..., N', C) -> (..., N, N'). A representational dissimilarity matrix is one of these.

Metrics, types, bounds, the zero rule and the NaN rule are those of `paired`, and so is the accuracy: a distance here is
the one `paired` gives to the same pair, to a relative 1e-5. Cosine, correlation and the two euclidean metrics come
from one matrix product of centred or unit vectors, in full float32 whatever `jax_default_matmul_precision` says. Such a
product leaves an absolute error, which is nothing to a large distance and everything to a small one; so pairs below
`_NEAR` are computed again as `paired` does, from the difference of the two vectors, in small tiles. Data whose vectors
are mostly near each other therefore take up to the time of the other metrics, which are computed in tiles throughout.

Bounds: without `b` the result is exactly symmetric (but for kl) and its diagonal is 0, NaN for vectors that hold NaN.

Gradients: those of `paired`, in tiles, each computed again on the way back rather than stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.correlation import less_mean
from modeldiff_jax.kernels.cosine import unit
from modeldiff_jax.kernels.dispatch import run
from modeldiff_jax.kernels.inputs import ArrayInput, as_float32
from modeldiff_jax.kernels.paired import METRICS

ASYMMETRIC = ("kl",)
_NEAR = 0.05
"""Pairs whose squared distance is below this share of the sum of their squared lengths are computed again. The matrix
product's error is about 2e-7 of that sum."""
_TINY = 1e-30  # squared lengths below it have lost digits


def pairwise_distances(
    a: ArrayInput,
    b: ArrayInput | None = None,
    metric: str = "cosine",
    *,
    condensed: bool = False,
    implementation: str | None = None,
) -> Float[Array, "*models n k"] | Float[Array, "*models p"]:
    """Distance between each vector of `a` and each of `b`, or each of `a` where there is no `b`.

    Args:
      a: (..., N, C), real numbers. Leading axes are models, say: each has a matrix of its own.
      b: (..., N', C), with the leading axes of `a`; or None for `a` itself.
      metric: as in `paired_distances`.
      condensed: only the N (N - 1) / 2 distances above the diagonal, row by row, which is scipy's order. Without `b`,
        and not for kl, which has two distances for a pair.
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
    """The definition: one pair after the other."""
    pair = METRICS[metric]

    def matrix(rows: tuple[Array, Array]) -> Array:
        return lax.map(lambda x: lax.map(lambda y: pair(x, y), rows[1]), rows[0])

    left, right = _models(a), _models(a if b is None else b)
    distances = lax.map(matrix, (left, right))
    if b is None:
        i, j = jnp.arange(a.shape[-2])[None, :, None], jnp.arange(a.shape[-2])[None, None, :]
        if metric not in ASYMMETRIC:
            distances = jnp.where(i <= j, distances, jnp.swapaxes(distances, 1, 2))
        distances = jnp.where((i == j) & ~jnp.isnan(distances), 0, distances)
    return distances.reshape(*a.shape[:-1], right.shape[1])


@partial(jax.jit, static_argnames="metric")
@jax.named_scope("pairwise_distances.xla")
def xla(
    a: Float[Array, "*models n c"], b: Float[Array, "*models k c"] | None, metric: str
) -> Float[Array, "*models n k"]:
    """By a matrix product where there is one for the metric, else in tiles."""
    left, right = _models(a), None if b is None else _models(b)
    columns = (left if right is None else right).shape[1]
    if min(left.shape[0], left.shape[1], columns) == 0:
        return jnp.zeros((*a.shape[:-1], columns), jnp.float32)
    distances = _by_product(left, right, metric) if metric in _PREPARE else _by_tiles(left, right, metric)
    return distances.reshape(*a.shape[:-1], columns)


VARIANTS: dict[str, Callable[[Array, Array | None, str], Array]] = {"xla": xla, "reference": reference}


def _models(x: Float[Array, "*models n c"]) -> Float[Array, "m n c"]:
    return x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])


# Condensed form


def triangle(k: Int[Array, "*p"], n: int) -> tuple[Int[Array, "*p"], Int[Array, "*p"]]:
    """Row and column of the `k`-th pair of `n` things, as scipy orders them."""
    back = n * (n - 1) // 2 - 1 - k  # counted from the end, where the root is exact to one, however large n is
    row = jnp.floor((jnp.sqrt(8.0 * back.astype(jnp.float32) + 1) - 1) / 2).astype(jnp.int32)
    row = jnp.where(row * (row + 1) // 2 > back, row - 1, row)
    row = jnp.where((row + 1) * (row + 2) // 2 <= back, row + 1, row)
    return n - 2 - row, n - 1 - (back - row * (row + 1) // 2)


@jax.jit
def condense(distances: Float[Array, "*models n n"]) -> Float[Array, "*models p"]:
    """What is above the diagonal, row by row."""
    n = distances.shape[-1]
    rows, columns = triangle(jnp.arange(n * (n - 1) // 2), n)
    return distances[..., rows, columns]


# Tiles: every metric, by its definition

_TILE = 2**19  # entries; what is done at once on a CPU
_SMALL_TILE = 2**16  # where only some pairs of a tile are asked for


def _tile(a: Array, b: Array | None, entries: int) -> tuple[int, int]:
    """Rows and columns of a tile, which needs about as many entries of both arrays' product."""
    columns = (a if b is None else b).shape[1]
    side = max(1, math.isqrt(entries // a.shape[-1]))
    if b is None:
        return min(side, columns), min(side, columns)
    rows = min(a.shape[1], max(side, entries // (a.shape[-1] * columns)))
    return rows, min(columns, max(1, entries // (a.shape[-1] * rows)))


def _by_tiles(a: Float[Array, "m n c"], b: Float[Array, "m k c"] | None, metric: str) -> Float[Array, "m n k"]:
    columns = (a if b is None else b).shape[1]

    def filled(entries: int, a: Array, b: Array | None) -> Array:
        tile = _tile(a, b, entries)
        down, across = -(-a.shape[1] // tile[0]), -(-columns // tile[1])
        half = b is None and metric not in ASYMMETRIC  # the tiles on and above the diagonal
        each = down * (down + 1) // 2 if half else down * across

        def place(k: Array) -> tuple[Array, Array, Array]:
            if half:
                row, column = triangle(k % each, down + 1)
                return k // each, row, column - 1
            return k // each, k % each // across, k % across

        return _fill(jnp.zeros((a.shape[0], a.shape[1], columns)), a, b, metric, tile, place, a.shape[0] * each)

    return lax.platform_dependent(a, b, cpu=partial(filled, _TILE), default=partial(filled, 2**9 * _TILE))


def _fill(
    distances: Float[Array, "m n k"],
    a: Float[Array, "m n c"],
    b: Float[Array, "m k c"] | None,
    metric: str,
    tile: tuple[int, int],
    place: Callable[[Array], tuple[Array, Array, Array]],
    count: Int[Array, ""] | int,
) -> Float[Array, "m n k"]:
    """`distances` with `count` tiles computed: `place` gives the model, row and column of tiles of each."""
    pair = METRICS[metric]
    rows, columns = tile
    right = a if b is None else b
    mirrored = b is None and metric not in ASYMMETRIC

    @jax.checkpoint
    def compute(a: Array, b: Array, model: Array, row: Array, column: Array) -> Array:
        x = lax.dynamic_slice(a, (model, row, 0), (1, rows, a.shape[-1]))[0]
        y = lax.dynamic_slice(b, (model, column, 0), (1, columns, a.shape[-1]))[0]
        return jax.vmap(lambda x: jax.vmap(lambda y: pair(x, y))(y))(x)

    def step(k: Array, distances: Array) -> Array:
        model, row, column = place(k)
        # the last tile moves up or left to fit, over what is there already
        row, column = (
            jnp.minimum(row * rows, a.shape[1] - rows),
            jnp.minimum(column * columns, right.shape[1] - columns),
        )
        values = compute(a, right, model, row, column)[None]
        if b is not None:
            return lax.dynamic_update_slice(distances, values, (model, row, column))
        i, j = row + jnp.arange(rows)[None, :, None], column + jnp.arange(columns)[None, None, :]
        values = jnp.where((i == j) & ~jnp.isnan(values), 0, values)
        if not mirrored:
            return lax.dynamic_update_slice(distances, values, (model, row, column))
        upper = i <= j
        for at in ((model, row, column), (model, column, row)):  # what is above the diagonal, then its mirror image
            there = lax.dynamic_slice(distances, at, values.shape)
            distances = lax.dynamic_update_slice(distances, jnp.where(upper, values, there), at)
            values, upper = jnp.swapaxes(values, 1, 2), jnp.swapaxes(upper, 1, 2)
        return distances

    return lax.fori_loop(0, count, step, distances)


# Products: metrics that are an inner product away


class _Rows(NamedTuple):
    """Vectors ready for the matrix product, their squared lengths, and which have no direction."""

    x: Float[Array, "m n c"]
    square: Float[Array, "m n"]
    zero: Bool[Array, "m n"]


def _centred(*sides: Array) -> tuple[_Rows, ...]:
    """Less the mean of all vectors, which takes an offset in common out of the product's error."""
    count = sum(x.shape[1] for x in sides)
    mean = sum(jnp.sum(x, axis=1, keepdims=True) for x in sides) * (1 / count)
    mean = jnp.where(jnp.isfinite(mean), mean, 0)  # where an entry is not, only the speed depends on it
    return tuple(_rows(x - mean, jnp.zeros(x.shape[:2], bool)) for x in sides)


def _unit(*sides: Array) -> tuple[_Rows, ...]:
    return tuple(_rows(*unit(x)) for x in sides)


def _unit_less_mean(*sides: Array) -> tuple[_Rows, ...]:
    return _unit(*(less_mean(x) for x in sides))


def _rows(x: Array, zero: Array) -> _Rows:
    return _Rows(x, jnp.sum(x * x, axis=-1), zero)


_PREPARE: dict[str, Callable[..., tuple[_Rows, ...]]] = {
    "correlation": _unit_less_mean,
    "cosine": _unit,
    "euclidean": _centred,
    "sqeuclidean": _centred,
}


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _by_product(a: Float[Array, "m n c"], b: Float[Array, "m k c"] | None, metric: str) -> Float[Array, "m n k"]:
    prepared = _PREPARE[metric](a) if b is None else _PREPARE[metric](a, b)
    left, right = prepared[0], prepared[-1]
    lengths = left.square[:, :, None] + right.square[:, None, :]
    squares = lengths - 2 * _products(left.x, None if b is None else right.x)
    near = ~((squares > _NEAR * lengths) & (lengths > _TINY) & (lengths < 1 / _TINY))
    distances = jnp.maximum(squares, 0)
    if metric == "euclidean":
        distances = jnp.sqrt(distances)
    elif metric in ("cosine", "correlation"):
        one, both = left.zero[:, :, None] ^ right.zero[:, None, :], left.zero[:, :, None] & right.zero[:, None, :]
        ruled = (one | both) & ~jnp.isnan(squares)
        distances = jnp.where(ruled, one.astype(jnp.float32), jnp.minimum(distances / 2, 2))
        near = near & ~ruled
    if b is None:
        itself = jnp.eye(a.shape[1], dtype=bool)[None] & (left.square < 1 / _TINY)[:, :, None]
        distances, near = jnp.where(itself, 0, distances), near & ~itself
    return _again(distances, near, a, b, metric)


@_by_product.defjvp
def _by_tiles_too(metric: str, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    tangent = jax.jvp(lambda a, b: _by_tiles(a, b, metric), primals, tangents)[1]
    a, b = primals
    return _by_product(a, b, metric), tangent


def _again(distances: Array, near: Array, a: Array, b: Array | None, metric: str) -> Array:
    """`distances` with the tiles that hold near pairs computed from differences."""
    rows, columns = tile = _tile(a, b, _SMALL_TILE)
    down, across = -(-near.shape[1] // rows), -(-near.shape[2] // columns)

    def listed(near: Array) -> tuple[Array, Array]:
        ends = (0, 0), (0, down * rows - near.shape[1]), (0, across * columns - near.shape[2])
        tiles = jnp.pad(near, ends).reshape(-1, down, rows, across, columns).any((2, 4))
        if b is None:
            tiles = jnp.triu(tiles)
        return jnp.nonzero(tiles.ravel(), size=tiles.size, fill_value=0)[0].astype(jnp.int32), jnp.sum(
            tiles, dtype=jnp.int32
        )

    def none(near: Array) -> tuple[Array, Array]:
        return jnp.zeros(near.shape[0] * down * across, jnp.int32), jnp.int32(0)

    numbers, count = lax.cond(near.any(), listed, none, near)

    def place(k: Array) -> tuple[Array, Array, Array]:
        number = numbers[k]
        return number // (down * across), number % (down * across) // across, number % across

    return _fill(distances, a, b, metric, tile, place, count)


_PARTS = 3
_WORTH_PARTS = 384


def _products(x: Float[Array, "m n c"], y: Float[Array, "m k c"] | None) -> Float[Array, "m n k"]:
    """Inner products; exactly symmetric without `y`."""
    if y is not None:
        return _product(x, y)
    if x.shape[1] < _WORTH_PARTS:
        return _symmetric(_product(x, x))
    return lax.platform_dependent(x, cpu=_upper_parts, default=lambda x: _symmetric(_product(x, x)))


def _product(x: Array, y: Array) -> Array:
    if x.shape[0] == 1:  # a CPU is quicker with one product than with a batch of one
        return jnp.matmul(x[0], y[0].T, precision=lax.Precision.HIGHEST)[None]
    return jnp.matmul(x, jnp.swapaxes(y, 1, 2), precision=lax.Precision.HIGHEST)


def _symmetric(products: Array) -> Array:
    return (products + jnp.swapaxes(products, 1, 2)) / 2  # (i, j) and (j, i) need not be added up in one order


def _upper_parts(x: Array) -> Array:
    """The parts on and above the diagonal, two thirds of all; the others are their transposes."""
    cuts = [round(x.shape[1] * part / _PARTS) for part in range(_PARTS + 1)]
    parts: dict[tuple[int, int], Array] = {}
    for i in range(_PARTS):
        wide = _product(x[:, cuts[i] : cuts[i + 1]], x[:, cuts[i] :])
        for j in range(i, _PARTS):
            part = wide[:, :, cuts[j] - cuts[i] : cuts[j + 1] - cuts[i]]
            parts[i, j] = _symmetric(part) if i == j else part
            parts[j, i] = jnp.swapaxes(parts[i, j], 1, 2)
    return jnp.concatenate([jnp.concatenate([parts[i, j] for j in range(_PARTS)], 2) for i in range(_PARTS)], 1)
