"""How alike two representational dissimilarity matrices are: the correlation of the distances between all pairs of
inputs as one model sees them with those as another does. (..., N, C) and (..., N, C') -> (...).

Neither the N x N matrices nor the vectors above their diagonals are kept: distances are made and summed in blocks of
rows, and squared euclidean ones, where C C' is below N^2, not made at all (see `_by_moments`). Spearman's needs all
distances of a model at once, to rank them. To compare many models each with each, make the vectors once instead:
`pearson_similarity(pairwise_distances(reactions, condensed=True))`.

Types, NaN and metrics: as in `pairwise`; a NaN in the reactions makes the similarity NaN. Zero rule: as in
`correlation` (for "cosine": `cosine`). Bounds: [-1, 1]. Gradients: those of the distances; Spearman's are 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import correlation, cosine, pairwise
from modeldiff_jax.kernels.dispatch import run
from modeldiff_jax.kernels.inputs import ArrayInput, as_float32, power_of_two
from modeldiff_jax.kernels.paired import METRICS

SIMILARITIES = ("pearson", "spearman", "cosine")
_BLOCK = 2**20  # distances made at once


def rdm_similarity(
    reactions_a: ArrayInput,
    reactions_b: ArrayInput,
    metric: str = "cosine",
    similarity: str = "pearson",
    *,
    implementation: str | None = None,
) -> Float[Array, "*models"]:
    """Similarity of what two models make of the distances between the same N inputs.

    Args:
      reactions_a: (..., N, C), the reactions of one model, or of many.
      reactions_b: (..., N, C'), those of the other to the same inputs in the same order.
      metric: of the distances, as in `pairwise_distances`; one that is the same in both directions.
      similarity: of the vectors of N (N - 1) / 2 distances: "pearson", "spearman" or "cosine".
      implementation: "xla", "reference", or None for the first that serves the call.

    Returns:
      (...), float32, in [-1, 1].

    Raises:
      InvalidInputError: shapes do not fit, there are fewer than two inputs, a type is not real, or a name is unknown.
    """
    where = "rdm_similarity"
    a, b = as_float32(reactions_a, f"{where}: reactions_a"), as_float32(reactions_b, f"{where}: reactions_b")
    if a.ndim < 2 or a.shape[:-1] != b.shape[:-1] or a.shape[-2] < 2:
        raise InvalidInputError(
            "Reactions are (..., N, C) and (..., N, C') to the same two or more inputs",
            got=f"{a.shape} and {b.shape}",
            where=where,
        )
    if metric not in METRICS or metric in pairwise.ASYMMETRIC:
        names = [name for name in METRICS if name not in pairwise.ASYMMETRIC]
        raise InvalidInputError(f"`metric` is one of {', '.join(names)}", got=repr(metric), where=where)
    if similarity not in SIMILARITIES:
        raise InvalidInputError(f"`similarity` is one of {', '.join(SIMILARITIES)}", got=repr(similarity), where=where)
    return run(where, VARIANTS, implementation, a, b, metric, similarity)


def _each(one: Callable[[Array, Array], Array], a: Array, b: Array) -> Array:
    left, right = (x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:]) for x in (a, b))
    return jax.vmap(one)(left, right).reshape(a.shape[:-2])


@partial(jax.jit, static_argnames=("metric", "similarity"))
@jax.named_scope("rdm_similarity.reference")
def reference(
    a: Float[Array, "*models n c"], b: Float[Array, "*models n d"], metric: str, similarity: str
) -> Float[Array, "*models"]:
    """The definition: of the vectors of distances, pair after pair."""
    return _each(partial(_of_vectors, pairwise.reference, metric, similarity), a, b)


@partial(jax.jit, static_argnames=("metric", "similarity"))
@jax.named_scope("rdm_similarity.xla")
def xla(
    a: Float[Array, "*models n c"], b: Float[Array, "*models n d"], metric: str, similarity: str
) -> Float[Array, "*models"]:
    """From sums over blocks of distances, or from moments of the reactions; Spearman's from the vectors."""
    if similarity == "spearman":
        return _each(partial(_of_vectors, pairwise.xla, metric, similarity), a, b)
    if metric == "sqeuclidean" and a.shape[-1] * b.shape[-1] < a.shape[-2] ** 2:
        return _each(partial(_by_moments, similarity), a, b)
    return _each(partial(_by_blocks, metric, similarity), a, b)


VARIANTS: dict[str, Callable[[Array, Array, str, str], Array]] = {"xla": xla, "reference": reference}


def _of_vectors(
    distances: Callable[..., Array], metric: str, similarity: str, a: Float[Array, "n c"], b: Float[Array, "n d"]
) -> Float[Array, ""]:
    x, y = (pairwise.condense(distances(side, None, metric))[None] for side in (a, b))
    if similarity == "spearman":
        x, y = correlation.ranks(x), correlation.ranks(y)
    if similarity != "cosine":
        x, y = correlation.less_mean(x), correlation.less_mean(y)
    return cosine.xla(x, y)[0, 0]


def _by_blocks(metric: str, similarity: str, a: Float[Array, "n c"], b: Float[Array, "n d"]) -> Float[Array, ""]:
    n = a.shape[0]
    rows = min(n, max(1, _BLOCK // n))
    count = -(-n // rows)
    padded = [jnp.pad(x, ((0, count * rows - n), (0, 0))).reshape(count, rows, -1) for x in (a, b)]

    def block(k: Array, x: Array, y: Array) -> tuple[Array, Array, Array]:
        number = k * rows + jnp.arange(rows)
        used = (number[:, None] != jnp.arange(n)[None, :]) & (number < n)[:, None]
        return pairwise.xla(x, a, metric), pairwise.xla(y, b, metric), used

    # Sums of differences from a distance near the mean, so that the squares do not drown what they differ in.
    first, second, used = block(jnp.int32(0), padded[0][0], padded[1][0])
    share = 1 / jnp.sum(used, dtype=jnp.float32)
    shift_a, shift_b = (lax.stop_gradient(jnp.sum(jnp.where(used, d, 0)) * share) for d in (first, second))
    if similarity == "cosine":
        shift_a = shift_b = jnp.float32(0)

    @jax.checkpoint
    def sums(part: tuple[Array, Array, Array]) -> Array:
        d, e, used = block(*part)
        d, e = jnp.where(used, d - shift_a, 0), jnp.where(used, e - shift_b, 0)
        return jnp.stack([jnp.sum(v) for v in (d, e, d * d, e * e, d * e)])

    d, e, dd, ee, de = jnp.sum(lax.map(sums, (jnp.arange(count), *padded)), axis=0)
    pairs = n * (n - 1)
    if similarity == "pearson":
        dd, ee, de = dd - d * d / pairs, ee - e * e / pairs, de - d * e / pairs
    return _ratio(dd, ee, de)


def _by_moments(similarity: str, a: Float[Array, "n c"], b: Float[Array, "n d"]) -> Float[Array, ""]:
    """Of squared euclidean distances, s_i + s_j - 2 x_i.x_j with s_i = |x_i|^2 and the x_i summing to zero.

    Over all i and j the products of two models' distances add up to 2 N s.t + 2 S T + 4 |A^T B|^2 (their other terms
    sum to zero), with S and T the sums of s and t. Less the product of the means, for Pearson's, that is
    2 N cov(s, t) + 4 (|A^T B|^2 - S T / (N - 1)), cov being a sum.
    """
    n = a.shape[0]
    a, b = (x * (1 / jnp.max(power_of_two(x))) for x in (a, b))
    a, b = a - jnp.mean(a, axis=0, keepdims=True), b - jnp.mean(b, axis=0, keepdims=True)
    s, t = jnp.sum(a * a, axis=1), jnp.sum(b * b, axis=1)

    def products(x: Array, y: Array, s: Array, t: Array) -> Array:
        both = jnp.sum(jnp.matmul(x.T, y, precision=lax.Precision.HIGHEST) ** 2)
        if similarity == "cosine":
            return 2 * n * jnp.sum(s * t) + 2 * jnp.sum(s) * jnp.sum(t) + 4 * both
        spread = jnp.sum((s - jnp.mean(s)) * (t - jnp.mean(t)))
        return 2 * n * spread + 4 * (both - jnp.sum(s) * jnp.sum(t) / (n - 1))

    return _ratio(products(a, a, s, s), products(b, b, t, t), products(a, b, s, t))


def _ratio(dd: Array, ee: Array, de: Array) -> Array:
    """The cosine from the three sums, by the zero rule."""
    d_zero, e_zero = dd <= 0, ee <= 0
    length = jnp.sqrt(jnp.where(d_zero, 1, dd)) * jnp.sqrt(jnp.where(e_zero, 1, ee))
    ruled = jnp.where(d_zero & e_zero, 1.0, 0.0)
    return jnp.where((d_zero | e_zero) & ~jnp.isnan(de), ruled, jnp.clip(de / length, -1, 1))
