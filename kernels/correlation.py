"""Correlation of every vector of one matrix with every vector of another, Pearson's and Spearman's: (M, D), (K, D) ->
(M, K). Decision distance vectors are compared by these beside the cosine.

Types and NaN rule: as in `cosine`. Pearson's is the cosine of the vectors less their means; Spearman's is Pearson's of
their ranks, equal entries sharing the mean of theirs. Ranks are exact up to 2**24 entries, and so is their order, but
where float32 makes float64 entries equal.

Zero rule: a constant vector has no direction, whatever its level: the similarity is 1 between two and 0 between one and
another vector.

Bounds: [-1, 1]. With one argument the result is exactly symmetric.

Gradients: Pearson's are 0 at constant vectors, Spearman's everywhere: ranks do not move with small changes.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import cosine
from modeldiff_jax.kernels.dispatch import run
from modeldiff_jax.kernels.inputs import ArrayInput, as_float32, power_of_two


def pearson_similarity(
    a: ArrayInput, b: ArrayInput | None = None, *, implementation: str | None = None
) -> Float[Array, "m k"]:
    """Pearson's correlation of each vector of `a` with each of `b`, or each of `a` when there is no `b`.

    Args:
      a: (M, D), real numbers, a vector per row.
      b: (K, D), or None for `a` itself.
      implementation: "xla", "reference", or None for the first that serves the call.

    Returns:
      (M, K), float32, in [-1, 1]. Constant vectors and NaN: see the head of this file.

    Raises:
      InvalidInputError: not two matrices of one width, a type is not real, or an unknown variant.
    """
    return _similarity("pearson_similarity", _centred, a, b, implementation)


def spearman_similarity(
    a: ArrayInput, b: ArrayInput | None = None, *, implementation: str | None = None
) -> Float[Array, "m k"]:
    """Spearman's rank correlation; arguments, result and errors as in `pearson_similarity`."""
    return _similarity("spearman_similarity", _centred_ranks, a, b, implementation)


def _similarity(
    where: str, prepare: Callable[[Array], Array], a: ArrayInput, b: ArrayInput | None, implementation: str | None
) -> Array:
    left = as_float32(a, f"{where}: a")
    right = None if b is None else as_float32(b, f"{where}: b")
    if left.ndim != 2 or (right is not None and (right.ndim != 2 or right.shape[1] != left.shape[1])):
        raise InvalidInputError(
            "`a` is (M, D) and `b` is (K, D)",
            got=f"{left.shape}" if right is None else f"{left.shape} and {right.shape}",
            where=where,
        )
    right = None if right is None else prepare(right)
    return run(where, VARIANTS, implementation, prepare(left), right)


VARIANTS = cosine.VARIANTS
"""After centring a correlation is a cosine."""


def less_mean(x: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
    """Scaled by a power of two, and less the mean: exactly zero for constant vectors."""
    constant = jnp.max(x, axis=-1, keepdims=True) == jnp.min(x, axis=-1, keepdims=True)
    x = x * (1 / power_of_two(x))
    for _ in range(2):  # the second takes off what rounding the first mean left
        x = x - jnp.mean(x, axis=-1, keepdims=True)
    return jnp.where(constant, 0, x)


def ranks(x: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
    """The rank of each entry in its vector, from 0; equal entries share the mean of theirs, NaN spoils its vector."""
    width = x.shape[-1]
    numbers = jnp.broadcast_to(jnp.arange(width), x.shape)
    values, order = lax.sort((x, numbers), dimension=-1, num_keys=1)
    changes = values[..., 1:] != values[..., :-1]
    edge = jnp.ones_like(changes, shape=(*x.shape[:-1], 1))
    first = lax.cummax(jnp.where(jnp.concatenate([edge, changes], -1), numbers, 0), axis=x.ndim - 1)
    last = lax.cummin(jnp.where(jnp.concatenate([changes, edge], -1), numbers, width), axis=x.ndim - 1, reverse=True)
    back = lax.sort((order, (first + last).astype(jnp.float32) / 2), dimension=-1, num_keys=1)[1]
    return jnp.where(jnp.isnan(x).any(-1, keepdims=True), jnp.nan, back)


@jax.jit
@jax.named_scope("pearson_similarity")
def _centred(x: Float[Array, "m d"]) -> Float[Array, "m d"]:
    return less_mean(x)


@jax.jit
@jax.named_scope("spearman_similarity")
def _centred_ranks(x: Float[Array, "m d"]) -> Float[Array, "m d"]:
    return less_mean(ranks(x))
