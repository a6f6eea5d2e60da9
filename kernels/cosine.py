"""Cosine similarity of every vector of one matrix with every vector of another: (M, D), (K, D) -> (M, K).

Types: as in `paired`: real numbers in, float32 arithmetic and float32 out.

Stability: vectors are scaled before they are squared, so finite ones neither under- nor overflow. Products are in
full float32 on every device, whatever `jax_default_matmul_precision` says. The absolute error is about 1e-7, and so is
that of 1 - similarity: for the distance of nearly equal vectors use `paired_distances`.

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
from jaxtyping import Array, Float

from modeldiff_jax.kernels.dispatch import run
from modeldiff_jax.kernels.inputs import ArrayInput
from modeldiff_jax.kernels.vectors import as_matrices, unit


def cosine_similarity(
    a: ArrayInput, b: ArrayInput | None = None, *, implementation: str | None = None
) -> Float[Array, "m k"]:
    """Returns the cosine of the angle between each vector of `a` and each of `b`, or of `a` if there is no `b`.

    Args:
      a: (M, D), real numbers, a vector per row.
      b: (K, D), or None for `a` itself.
      implementation: "xla", "reference", or None for the first that serves the call.

    Returns:
      (M, K), float32, in [-1, 1]: 1 between two zero vectors, 0 between a zero and another one, and NaN in the row or
      column of a vector with NaN or an infinity.

    Raises:
      InvalidInputError: not two matrices of one width, a type is not real, or an unknown variant.
    """
    left, right = as_matrices(a, b, "cosine_similarity")
    return run("cosine_similarity", VARIANTS, implementation, left, right)


@jax.jit
@jax.named_scope("cosine_similarity.reference")
def reference(a: Float[Array, "m d"], b: Float[Array, "k d"] | None) -> Float[Array, "m k"]:
    """Computes the inner products of unit vectors, one pair after another: the definition."""

    def pair(x: Float[Array, " d"], y: Float[Array, " d"]) -> Float[Array, ""]:
        (u, u_zero), (v, v_zero) = unit(x), unit(y)
        return jnp.where(u_zero & v_zero, 1, jnp.clip(jnp.sum(u * v), -1, 1))

    others = a if b is None else b
    return lax.map(lambda x: lax.map(lambda y: pair(x, y), others), a)


@jax.jit
@jax.named_scope("cosine_similarity.xla")
def xla(a: Float[Array, "m d"], b: Float[Array, "k d"] | None) -> Float[Array, "m k"]:
    """Multiplies the matrices of unit vectors."""
    u, u_zero = unit(a)
    v, v_zero = (u, u_zero) if b is None else unit(b)
    products = jnp.matmul(u, v.T, precision=lax.Precision.HIGHEST)
    if b is None:
        products = (products + products.T) / 2  # a matrix product may sum (i, j) and (j, i) in different orders
    return jnp.where(u_zero[:, None] & v_zero[None, :], 1, jnp.clip(products, -1, 1))


VARIANTS: dict[str, Callable[[Array, Array | None], Array]] = {"xla": xla, "reference": reference}
