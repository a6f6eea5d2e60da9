"""Correlation of every vector of one matrix with every vector of another: (M, D), (K, D) -> (M, K).

Decision distance vectors are compared by these beside the cosine. Pearson's correlation is the cosine of the centred
vectors; Spearman's is Pearson's of their ranks, with equal entries sharing the mean of their ranks.

Types and NaN rule: as in `cosine`. Ranks are exact up to 2**24 entries. float64 entries that round to one float32 tie.

Zero rule: a constant vector has no direction, whatever its level: the similarity is 1 between two constant vectors and
0 between a constant and another vector.

Bounds: [-1, 1]. With one argument the result is exactly symmetric.

Gradients: Pearson's are 0 at constant vectors, Spearman's everywhere, because ranks are piecewise constant.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from modeldiff_jax.kernels import cosine
from modeldiff_jax.kernels.dispatch import run
from modeldiff_jax.kernels.inputs import ArrayInput
from modeldiff_jax.kernels.vectors import as_matrices, centred


def pearson_similarity(
    a: ArrayInput, b: ArrayInput | None = None, *, implementation: str | None = None
) -> Float[Array, "m k"]:
    """Returns Pearson's correlation of each vector of `a` with each of `b`, or of `a` if there is no `b`.

    Args:
      a: (M, D), real numbers, a vector per row.
      b: (K, D), or None for `a` itself.
      implementation: "xla", "reference", or None for the first that serves the call.

    Returns:
      (M, K), float32, in [-1, 1]: 1 between two constant vectors, 0 between a constant and another one, and NaN in the
      row or column of a vector with NaN or an infinity.

    Raises:
      InvalidInputError: not two matrices of one width, a type is not real, or an unknown variant.
    """
    return _similarity("pearson_similarity", _centred, a, b, implementation)


def spearman_similarity(
    a: ArrayInput, b: ArrayInput | None = None, *, implementation: str | None = None
) -> Float[Array, "m k"]:
    """Returns Spearman's rank correlation; arguments, result and errors as in `pearson_similarity`."""
    return _similarity("spearman_similarity", _centred_ranks, a, b, implementation)


def _similarity(
    where: str, prepare: Callable[[Array], Array], a: ArrayInput, b: ArrayInput | None, implementation: str | None
) -> Array:
    left, right = as_matrices(a, b, where)
    return run(where, VARIANTS, implementation, prepare(left), None if right is None else prepare(right))


VARIANTS = cosine.VARIANTS
"""The variants of the cosine, which is the correlation of centred vectors."""


def ranks(x: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
    """Returns the rank of each entry within its vector, from 0.

    Equal entries share the mean of their ranks. A vector with NaN has ranks of NaN.
    """
    width = x.shape[-1]
    numbers = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32), x.shape)
    values, order = lax.sort((x, numbers), dimension=-1, num_keys=1)
    changes = values[..., 1:] != values[..., :-1]
    edge = jnp.ones_like(changes, shape=(*x.shape[:-1], 1))
    first = lax.cummax(jnp.where(jnp.concatenate([edge, changes], -1), numbers, 0), axis=x.ndim - 1)
    last = lax.cummin(jnp.where(jnp.concatenate([changes, edge], -1), numbers, width), axis=x.ndim - 1, reverse=True)
    unsorted = lax.sort((order, (first + last).astype(jnp.float32) / 2), dimension=-1, num_keys=1)[1]
    return jnp.where(jnp.isnan(x).any(-1, keepdims=True), jnp.nan, unsorted)


@jax.jit
@jax.named_scope("pearson_similarity")
def _centred(x: Float[Array, "m d"]) -> Float[Array, "m d"]:
    return centred(x)


@jax.jit
@jax.named_scope("spearman_similarity")
def _centred_ranks(x: Float[Array, "m d"]) -> Float[Array, "m d"]:
    return centred(ranks(x))
