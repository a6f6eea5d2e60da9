"""Cosine similarity of every vector of one matrix with every vector of another: (M, D), (K, D) -> (M, K).

Types: as in `paired`: real numbers in, float32 arithmetic and float32 out.

Stability: vectors are scaled before they are squared, so finite ones neither under- nor overflow. Products are in
full float32 on every device, whatever `jax_default_matmul_precision` says; the error is about 1e-7, absolute, and 1 -
similarity is only good to that: for the distance of near-equal vectors use `paired_distances`.

Zero rule: the similarity is 1 between two zero vectors and 0 between a zero and another vector.

NaN rule: NaN or an infinity in a vector makes that vector's row or column NaN, and no other.

Bounds: [-1, 1]. With one argument the result is exactly symmetric.

Gradients: 0 at zero vectors.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.dispatch import run
from modeldiff_jax.kernels.inputs import ArrayInput, as_float32, power_of_two


def cosine_similarity(
    a: ArrayInput, b: ArrayInput | None = None, *, implementation: str | None = None
) -> Float[Array, "m k"]:
    """Cosine of the angle between each vector of `a` and each of `b`, or each of `a` when there is no `b`.

    Args:
      a: (M, D), real numbers, a vector per row.
      b: (K, D), or None for `a` itself.
      implementation: "xla", "reference", or None for the first that serves the call.

    Returns:
      (M, K), float32, in [-1, 1]. Zero vectors and NaN: see the head of this file.

    Raises:
      InvalidInputError: not two matrices of one width, a type is not real, or an unknown variant.
    """
    left = as_float32(a, "cosine_similarity: a")
    right = None if b is None else as_float32(b, "cosine_similarity: b")
    if left.ndim != 2 or (right is not None and (right.ndim != 2 or right.shape[1] != left.shape[1])):
        raise InvalidInputError(
            "`a` is (M, D) and `b` is (K, D)",
            got=f"{left.shape}" if right is None else f"{left.shape} and {right.shape}",
            where="cosine_similarity",
        )
    return run("cosine_similarity", VARIANTS, implementation, left, right)


def unit(x: Float[Array, "*rows d"]) -> tuple[Float[Array, "*rows d"], Bool[Array, "*rows"]]:
    """The unit vectors, and which vectors are zero: these have none and stay zero, with a gradient of zero."""
    x = x * (1 / power_of_two(x))
    square = jnp.sum(x * x, axis=-1)
    zero = square == 0
    return jnp.where(zero[..., None], 0, x / jnp.sqrt(jnp.where(zero, 1, square))[..., None]), zero


@jax.jit
@jax.named_scope("cosine_similarity.reference")
def reference(a: Float[Array, "m d"], b: Float[Array, "k d"] | None) -> Float[Array, "m k"]:
    """The definition: the inner product of unit vectors, one pair after the other."""

    def pair(x: Float[Array, " d"], y: Float[Array, " d"]) -> Float[Array, ""]:
        (u, u_zero), (v, v_zero) = unit(x), unit(y)
        return jnp.where(u_zero & v_zero, 1, jnp.clip(jnp.sum(u * v), -1, 1))

    others = a if b is None else b
    return lax.map(lambda x: lax.map(lambda y: pair(x, y), others), a)


@jax.jit
@jax.named_scope("cosine_similarity.xla")
def xla(a: Float[Array, "m d"], b: Float[Array, "k d"] | None) -> Float[Array, "m k"]:
    """One matrix product of the unit vectors."""
    u, u_zero = unit(a)
    v, v_zero = (u, u_zero) if b is None else unit(b)
    products = jnp.matmul(u, v.T, precision=lax.Precision.HIGHEST)
    if b is None:
        products = (products + products.T) / 2  # a matrix product need not add up (i, j) and (j, i) in one order
    return jnp.where(u_zero[:, None] & v_zero[None, :], 1, jnp.clip(products, -1, 1))


VARIANTS: dict[str, Callable[[Array, Array | None], Array]] = {"xla": xla, "reference": reference}
