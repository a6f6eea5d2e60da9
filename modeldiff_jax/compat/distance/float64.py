"""scipy's distances over whole matrices, in float64 on the CPU: (N, C), (K, C) -> (N, K).

Metrics that a matrix product gives are computed by one; others row by row. Euclidean distances come from a product of
centred vectors while none is small beside the vectors, where such a product has no digits; else from differences.
Vectors that scipy has no distance for (zero ones for the cosine, say) have NaN here as there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

_NEAR = 1e-6  # of the squared lengths: the product then still has nine digits
Weights = Float[Array, " c"]
Matrix = Float[Array, "n k"]


def distances(metric: str, a: np.ndarray, b: np.ndarray, w: np.ndarray | None, p: float) -> np.ndarray:
    """The matrix of distances, `w` being weights of the entries and `p` Minkowski's exponent."""
    cpu = jax.local_devices(backend="cpu")[0]
    lenient = jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard")
    with jax.enable_x64(True), jax.default_device(cpu), lenient[0], lenient[1]:
        return np.array(_distances(metric, a, b, w, np.float64(p)))


@partial(jax.jit, static_argnums=0)
@jax.named_scope("distance.float64")
def _distances(metric: str, a: Array, b: Array, w: Array | None, p: Array) -> Array:
    weights = jnp.ones(a.shape[1]) if w is None else w
    if metric in _BY_COUNTS:
        if metric == "jaccard":
            a, b = (a != 0).astype(a.dtype), (b != 0).astype(b.dtype)
        return _BY_COUNTS[metric](_counts(a, b, weights))
    if metric in _WHOLE:
        return _WHOLE[metric](a, b, weights)
    row = _minkowski(p) if metric == "minkowski" else _BY_ROWS[metric]
    return lax.map(lambda u: row(u, b, weights), a)


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST)


# By a matrix product


def _squared(a: Array, b: Array, w: Weights) -> Matrix:
    middle = (jnp.sum(a, 0) + jnp.sum(b, 0)) / (a.shape[0] + b.shape[0])
    x, y = (a - middle) * jnp.sqrt(w), (b - middle) * jnp.sqrt(w)
    lengths = jnp.sum(x * x, 1)[:, None] + jnp.sum(y * y, 1)
    squares = lengths - 2 * _product(x, y)

    def differences() -> Matrix:
        return lax.map(lambda u: jnp.sum(w * (u - b) ** 2, 1), a)

    # most often the only near pairs are those of a vector with itself
    itself = jnp.eye(a.shape[0], b.shape[0], dtype=bool) & jnp.all(a == b) if a.shape == b.shape else False
    enough = (squares > _NEAR * lengths) | itself
    return lax.cond(enough.all(), lambda: jnp.where(itself, 0, squares), differences)


def _cosine(a: Array, b: Array, w: Weights) -> Matrix:
    lengths = jnp.sqrt(jnp.sum(w * a * a, 1))[:, None] * jnp.sqrt(jnp.sum(w * b * b, 1))
    return jnp.clip(1 - _product(w * a, b) / lengths, 0, 2)


def _correlation(a: Array, b: Array, w: Weights) -> Matrix:
    w = w / jnp.sum(w)
    return _cosine(a - jnp.sum(w * a, 1, keepdims=True), b - jnp.sum(w * b, 1, keepdims=True), w)


_WHOLE: dict[str, Callable[[Array, Array, Weights], Matrix]] = {
    "correlation": _correlation,
    "cosine": _cosine,
    "euclidean": lambda a, b, w: jnp.sqrt(_squared(a, b, w)),
    "sqeuclidean": _squared,
}


# By how many entries are true in both, in the first, in the second, in neither

Counts = tuple[Matrix, Matrix, Matrix, Matrix]


def _counts(a: Array, b: Array, w: Weights) -> Counts:
    x, y = w * a, w * (1 - a)
    return _product(x, b), _product(x, 1 - b), _product(y, b), _product(y, 1 - b)


def _dice(counts: Counts) -> Matrix:
    both, first, second, _ = counts
    return (first + second) / (2 * both + first + second)


def _jaccard(counts: Counts) -> Matrix:
    both, first, second, _ = counts
    some = both + first + second
    return jnp.where(some == 0, 0, (first + second) / jnp.where(some == 0, 1, some))


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
    half = first * second
    return jnp.where(half == 0, 0, 2 * half / jnp.where(half == 0, 1, both * neither + half))


_BY_COUNTS: dict[str, Callable[[Counts], Matrix]] = {
    "dice": _dice,
    "jaccard": _jaccard,
    "rogerstanimoto": _rogerstanimoto,
    "russellrao": _russellrao,
    "sokalsneath": _sokalsneath,
    "yule": _yule,
}


# Row by row

Row = Callable[[Array, Array, Weights], Array]


def _braycurtis(u: Array, b: Array, w: Weights) -> Array:
    return jnp.sum(w * abs(u - b), 1) / jnp.sum(w * abs(u + b), 1)


def _canberra(u: Array, b: Array, w: Weights) -> Array:
    size = abs(u) + abs(b)
    return jnp.sum(w * jnp.where(size == 0, 0, abs(u - b) / jnp.where(size == 0, 1, size)), 1)


def _jensenshannon(u: Array, b: Array, w: Weights) -> Array:
    u, b = u / jnp.sum(u), b / jnp.sum(b, 1, keepdims=True)
    middle = (u + b) / 2
    divergence = jnp.sum(jax.scipy.special.rel_entr(u, middle) + jax.scipy.special.rel_entr(b, middle), 1)
    return jnp.sqrt(jnp.maximum(divergence / 2, 0))


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
    "hamming": lambda u, b, w: jnp.sum(w * (u != b), 1) / jnp.sum(w),
    "jensenshannon": _jensenshannon,
}
