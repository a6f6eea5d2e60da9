"""scipy's distances between all rows of two matrices, in float64 on the CPU: (N, C), (K, C) -> (N, K).

Metrics that are functions of inner products take one matrix product; others go row by row. Euclidean distances come
from a product of centred vectors unless one is small compared with the vectors, where such a product has no digits;
then from differences. Where scipy has no distance, as for the cosine of a zero vector, the result is NaN as in scipy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from modeldiff_jax.runtime.settings import default_promotion

_NEAR = 1e-6
"""Least share of the squared lengths for which a product's squared distance is used; it then has nine digits."""
Weights = Float[Array, " c"]
Matrix = Float[Array, "n k"]


def distances(metric: str, a: np.ndarray, b: np.ndarray, w: np.ndarray | None, p: float) -> np.ndarray:
    """Returns the matrix of distances.

    Args:
      metric: one of scipy's names, other than mahalanobis and seuclidean.
      a: (N, C), float64.
      b: (K, C), float64.
      w: weights of the entries, or None.
      p: exponent of minkowski.
    """
    cpu = jax.local_devices(backend="cpu")[0]
    with jax.enable_x64(True), jax.default_device(cpu), default_promotion():
        arrays = jax.device_put((a, b, w, np.float64(p)))
        with jax.debug_nans(False):  # NaN is the result where there is no distance
            return np.array(_distances(metric, *arrays))


@partial(jax.jit, static_argnums=0)
@jax.named_scope("distance.float64")
def _distances(metric: str, a: Array, b: Array, w: Array | None, p: Array) -> Array:
    if metric in _BY_COUNTS and not (metric == "dice" and w is not None):
        if metric != "dice":  # for which scipy multiplies numbers as they are, without weights
            a, b = (a != 0).astype(a.dtype), (b != 0).astype(b.dtype)
        return _BY_COUNTS[metric](_counts(a, b, w))
    if metric == "correlation":
        return _correlation(a, b, w)
    weights = jnp.ones(a.shape[1]) if w is None else w
    if metric in _BY_PRODUCT:
        return _BY_PRODUCT[metric](a, b, weights)
    row = _minkowski(p) if metric == "minkowski" else _BY_ROWS[metric]
    return lax.map(lambda u: row(u, b, weights), a)


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST)


# Functions of inner products


def _sqeuclidean(a: Array, b: Array, w: Weights) -> Matrix:
    mean = (jnp.sum(a, 0) + jnp.sum(b, 0)) / (a.shape[0] + b.shape[0])
    x, y = (a - mean) * jnp.sqrt(w), (b - mean) * jnp.sqrt(w)
    lengths = jnp.sum(x * x, 1)[:, None] + jnp.sum(y * y, 1)
    squares = lengths - 2 * _product(x, y)

    def differences() -> Matrix:
        return lax.map(lambda u: jnp.sum(w * (u - b) ** 2, 1), a)

    # Usually the only near pairs are those of a vector with itself.
    diagonal = jnp.eye(a.shape[0], b.shape[0], dtype=bool) & jnp.all(a == b) if a.shape == b.shape else False
    accurate = (squares > _NEAR * lengths) | diagonal
    return lax.cond(accurate.all(), lambda: jnp.where(diagonal, 0, squares), differences)


def _cosine(a: Array, b: Array, w: Weights) -> Matrix:
    lengths = jnp.sqrt(jnp.sum(w * a * a, 1))[:, None] * jnp.sqrt(jnp.sum(w * b * b, 1))
    return jnp.clip(1 - _product(w * a, b) / lengths, 0, 2)


def _correlation(a: Array, b: Array, w: Weights | None) -> Matrix:
    if w is None:  # a plain mean, so that a constant vector minus its mean is exactly 0
        means, w = (jnp.mean(x, 1, keepdims=True) for x in (a, b)), jnp.ones(a.shape[1])
    else:
        w = w / jnp.sum(w)
        means = (jnp.sum(w * x, 1, keepdims=True) for x in (a, b))
    a, b = (x - mean for x, mean in zip((a, b), means, strict=True))
    return _cosine(a, b, w)


_BY_PRODUCT: dict[str, Callable[[Array, Array, Weights], Matrix]] = {
    "cosine": _cosine,
    "euclidean": lambda a, b, w: jnp.sqrt(_sqeuclidean(a, b, w)),
    "sqeuclidean": _sqeuclidean,
}


# Functions of the numbers of entries that are true in both vectors, in the first only, in the second only, in neither

Counts = tuple[Matrix, Matrix, Matrix, Matrix]


def _counts(a: Array, b: Array, w: Weights | None) -> Counts:
    x, y = (a, 1 - a) if w is None else (w * a, w * (1 - a))
    return _product(x, b), _product(x, 1 - b), _product(y, b), _product(y, 1 - b)


def _dice(counts: Counts) -> Matrix:
    both, first, second, _ = counts
    return (first + second) / (2 * both + first + second)


def _jaccard(counts: Counts) -> Matrix:
    both, first, second, _ = counts
    union = both + first + second
    return jnp.where(union == 0, 0, (first + second) / jnp.where(union == 0, 1, union))


def _rogerstanimoto(counts: Counts) -> Matrix:
    both, first, second, neither = counts
    return 2 * (first + second) / (both + neither + 2 * (first + second))


def _russellrao(counts: Counts) -> Matrix:
    both, first, second, neither = counts
    return (first + second + neither) / (both + first + second + neither)


def _sokalsneath(counts: Counts) -> Matrix:
    both, first, second, _ = counts
    return 2 * (first + second) / (both + 2 * (first + second))


def _yule(counts: Counts) -> Matrix:
    both, first, second, neither = counts
    unequal = first * second
    return jnp.where(unequal == 0, 0, 2 * unequal / jnp.where(unequal == 0, 1, both * neither + unequal))


_BY_COUNTS: dict[str, Callable[[Counts], Matrix]] = {
    "dice": _dice,
    "jaccard": _jaccard,
    "rogerstanimoto": _rogerstanimoto,
    "russellrao": _russellrao,
    "sokalsneath": _sokalsneath,
    "yule": _yule,
}


# One row at a time

Row = Callable[[Array, Array, Weights], Array]


def _braycurtis(u: Array, b: Array, w: Weights) -> Array:
    return jnp.sum(w * abs(u - b), 1) / jnp.sum(w * abs(u + b), 1)


def _canberra(u: Array, b: Array, w: Weights) -> Array:
    size = abs(u) + abs(b)
    return jnp.sum(w * jnp.where(size == 0, 0, abs(u - b) / jnp.where(size == 0, 1, size)), 1)


def _weighted_dice(u: Array, b: Array, w: Weights) -> Array:
    # scipy's formula for numbers; it differs from the one without weights, except for booleans
    unequal, both = jnp.sum(w * (u != b), 1), jnp.sum(w * ((u != 0) & (b != 0)), 1)
    return unequal / (2 * both + unequal)


def _jensenshannon(u: Array, b: Array, w: Weights) -> Array:
    invalid, equal = _is_no_distribution(u) | _is_no_distribution(b), jnp.all(u == b, 1)
    u, b = u / jnp.sum(u), b / jnp.sum(b, 1, keepdims=True)
    mean = (u + b) / 2
    divergence = jnp.sum(jax.scipy.special.rel_entr(u, mean) + jax.scipy.special.rel_entr(b, mean), 1)
    unknown = jnp.isnan(jnp.sum(u) + jnp.sum(b, 1))  # rel_entr of NaN is infinite
    distance = jnp.where(unknown, jnp.nan, jnp.sqrt(jnp.where(equal, 0, jnp.maximum(divergence / 2, 0))))
    return jnp.where(invalid, jnp.inf, distance)


def _is_no_distribution(x: Array) -> Array:
    return jnp.any(x < 0, axis=-1) | (jnp.sum(x, axis=-1) == 0)


def _minkowski(p: Array) -> Row:
    def row(u: Array, b: Array, w: Weights) -> Array:
        differences = abs(u - b)
        largest = jnp.max(jnp.where(w > 0, differences, 0), 1)
        return jnp.where(jnp.isinf(p), largest, jnp.sum(w * differences**p, 1) ** (1 / p))

    return row


_BY_ROWS: dict[str, Row] = {
    "braycurtis": _braycurtis,
    "canberra": _canberra,
    "chebyshev": lambda u, b, w: jnp.max(jnp.where(w > 0, abs(u - b), 0), 1),
    "cityblock": lambda u, b, w: jnp.sum(w * abs(u - b), 1),
    "dice": _weighted_dice,
    "hamming": lambda u, b, w: jnp.sum(w * (u != b), 1) / jnp.sum(w),
    "jensenshannon": _jensenshannon,
}
