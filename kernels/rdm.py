"""Similarity of two representational dissimilarity matrices: (..., N, C) and (..., N, C') -> (...).

It is the correlation of the distances between all pairs of inputs in one model's reactions with those in another's.

Neither the N x N matrices nor the vectors above their diagonals are kept. Distances are computed and summed in blocks
of rows; squared euclidean ones, where C C' is below N^2, are not computed at all (see `_by_moments`). Spearman's needs
all distances of a model at once, to rank them. To compare many models with each other, compute the vectors once:
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
from modeldiff_jax.kernels.inputs import ArrayInput, as_float32
from modeldiff_jax.kernels.paired import METRICS
from modeldiff_jax.kernels.vectors import centred, power_of_two

SIMILARITIES = ("pearson", "spearman", "cosine")
_DISTANCES_AT_ONCE = 2**20


def rdm_similarity(
    reactions_a: ArrayInput,
    reactions_b: ArrayInput,
    metric: str = "cosine",
    similarity: str = "pearson",
    *,
    implementation: str | None = None,
) -> Float[Array, "*models"]:
    """Returns the similarity of two models' distances between the same N inputs.

    Args:
      reactions_a: (..., N, C), reactions of one model, or of many.
      reactions_b: (..., N, C'), reactions of the other model to the same inputs in the same order.
      metric: metric of the distances, as in `pairwise_distances`; a symmetric one, so not "kl".
      similarity: "pearson", "spearman" or "cosine", of the two vectors of N (N - 1) / 2 distances.
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


def _per_model(similarity: Callable[[Array, Array], Array], a: Array, b: Array) -> Array:
    left, right = (x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:]) for x in (a, b))
    return jax.vmap(similarity)(left, right).reshape(a.shape[:-2])


@partial(jax.jit, static_argnames=("metric", "similarity"))
@jax.named_scope("rdm_similarity.reference")
def reference(
    a: Float[Array, "*models n c"], b: Float[Array, "*models n d"], metric: str, similarity: str
) -> Float[Array, "*models"]:
    """Compares the vectors of distances, computed one pair after another: the definition."""
    return _per_model(partial(_of_vectors, pairwise.reference, metric, similarity), a, b)


@partial(jax.jit, static_argnames=("metric", "similarity"))
@jax.named_scope("rdm_similarity.xla")
def xla(
    a: Float[Array, "*models n c"], b: Float[Array, "*models n d"], metric: str, similarity: str
) -> Float[Array, "*models"]:
    """Sums over blocks of distances, or moments of the reactions; for Spearman's compares the vectors."""
    if similarity == "spearman":
        return _per_model(partial(_of_vectors, pairwise.xla, metric, similarity), a, b)
    if metric == "sqeuclidean" and a.shape[-1] * b.shape[-1] < a.shape[-2] ** 2:
        return _per_model(partial(_by_moments, similarity), a, b)
    return _per_model(partial(_by_blocks, metric, similarity), a, b)


VARIANTS: dict[str, Callable[[Array, Array, str, str], Array]] = {"xla": xla, "reference": reference}


def _of_vectors(
    distances: Callable[..., Array], metric: str, similarity: str, a: Float[Array, "n c"], b: Float[Array, "n d"]
) -> Float[Array, ""]:
    x, y = (pairwise.condense(distances(side, None, metric))[None] for side in (a, b))
    if similarity == "spearman":
        x, y = correlation.ranks(x), correlation.ranks(y)
    if similarity != "cosine":
        x, y = centred(x), centred(y)
    return cosine.xla(x, y)[0, 0]


def _by_blocks(metric: str, similarity: str, a: Float[Array, "n c"], b: Float[Array, "n d"]) -> Float[Array, ""]:
    n = a.shape[0]
    rows = min(n, max(1, _DISTANCES_AT_ONCE // n))
    blocks = -(-n // rows)
    padded = [jnp.pad(x, ((0, blocks * rows - n), (0, 0))).reshape(blocks, rows, -1) for x in (a, b)]

    def distances(block: Array, x: Array, y: Array) -> tuple[Array, Array, Array]:
        number = block * rows + jnp.arange(rows, dtype=jnp.int32)
        used = (number[:, None] != jnp.arange(n, dtype=jnp.int32)[None, :]) & (number < n)[:, None]
        return pairwise.xla(x, a, metric), pairwise.xla(y, b, metric), used

    # Sum differences from a distance near the mean: sums of squared distances would lose the digits that differ.
    first, second, used = distances(jnp.int32(0), padded[0][0], padded[1][0])
    share = 1 / jnp.sum(used, dtype=jnp.float32)
    shift_a, shift_b = (lax.stop_gradient(jnp.sum(jnp.where(used, d, 0)) * share) for d in (first, second))
    if similarity == "cosine":
        shift_a = shift_b = jnp.float32(0)

    @jax.checkpoint
    def block_sums(block: tuple[Array, Array, Array]) -> Array:
        d, e, used = distances(*block)
        d, e = jnp.where(used, d - shift_a, 0), jnp.where(used, e - shift_b, 0)
        return jnp.stack([jnp.sum(terms) for terms in (d, e, d * d, e * e, d * e)])

    numbers = jnp.arange(blocks, dtype=jnp.int32)
    d, e, dd, ee, de = jnp.sum(lax.map(block_sums, (numbers, *padded)), axis=0)
    pairs = float(n * (n - 1))  # may exceed int32
    if similarity == "pearson":
        dd, ee, de = dd - d * d / pairs, ee - e * e / pairs, de - d * e / pairs
    return _cosine_of_sums(dd, ee, de)


def _by_moments(similarity: str, a: Float[Array, "n c"], b: Float[Array, "n d"]) -> Float[Array, ""]:
    """Computes the similarity of squared euclidean distances from moments of the reactions.

    The distances are s_i + s_j - 2 x_i.x_j with s_i = |x_i|^2, and the x_i are shifted to sum to zero. Summed over all
    i and j, the products of two models' distances are 2 N s.t + 2 S T + 4 |A^T B|^2, where S and T are the sums of s
    and t; the other terms vanish. Minus the product of the means, as Pearson's needs, that is
    2 N cov(s, t) + 4 (|A^T B|^2 - S T / (N - 1)), where cov is a sum.
    """
    n = a.shape[0]
    a, b = (x * (1 / jnp.max(power_of_two(x))) for x in (a, b))
    a, b = a - jnp.mean(a, axis=0, keepdims=True), b - jnp.mean(b, axis=0, keepdims=True)
    s, t = jnp.sum(a * a, axis=1), jnp.sum(b * b, axis=1)

    def sum_of_products(x: Array, y: Array, s: Array, t: Array) -> Array:
        both = jnp.sum(jnp.matmul(x.T, y, precision=lax.Precision.HIGHEST) ** 2)
        if similarity == "cosine":
            return 2 * n * jnp.sum(s * t) + 2 * jnp.sum(s) * jnp.sum(t) + 4 * both
        spread = jnp.sum((s - jnp.mean(s)) * (t - jnp.mean(t)))
        return 2 * n * spread + 4 * (both - jnp.sum(s) * jnp.sum(t) / (n - 1))

    return _cosine_of_sums(sum_of_products(a, a, s, s), sum_of_products(b, b, t, t), sum_of_products(a, b, s, t))


def _cosine_of_sums(dd: Array, ee: Array, de: Array) -> Array:
    """Returns de / sqrt(dd ee), or the value of the zero rule."""
    d_zero, e_zero = dd <= 0, ee <= 0
    length = jnp.sqrt(jnp.where(d_zero, 1, dd)) * jnp.sqrt(jnp.where(e_zero, 1, ee))
    ruled = jnp.where(d_zero & e_zero, jnp.float32(1), jnp.float32(0))
    return jnp.where((d_zero | e_zero) & ~jnp.isnan(de), ruled, jnp.clip(de / length, -1, 1))
