"""Scaling, centring and normalising vectors (the last axis of an array), and the argument check of two matrices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.inputs import ArrayInput, as_float32

TINY = 2.0**-126
"""Smallest normal float32."""


def power_of_two(x: Float[Array, "*rows c"]) -> Float[Array, "*rows 1"]:
    """Returns a power of two near the largest magnitude of each vector, constant under differentiation.

    Multiplying by its inverse is exact and brings that magnitude near 1.
    """
    largest = lax.reduce_precision(jnp.max(jnp.abs(x), axis=-1, keepdims=True), exponent_bits=8, mantissa_bits=0)
    return lax.stop_gradient(jnp.clip(largest, TINY, 1 / TINY))  # the inverse must be a normal number too


def unit(x: Float[Array, "*rows c"]) -> tuple[Float[Array, "*rows c"], Bool[Array, "*rows"]]:
    """Scales vectors to length 1.

    Args:
      x: vectors of any magnitude; they are scaled before they are squared, so nothing under- or overflows.

    Returns:
      Unit vectors, and whether each vector was zero. Zero vectors stay zero and have a gradient of zero.
    """
    x = x * (1 / power_of_two(x))
    square = jnp.sum(x * x, axis=-1)
    zero = square == 0
    return jnp.where(zero[..., None], 0, x / jnp.sqrt(jnp.where(zero, 1, square))[..., None]), zero


def centred(x: Float[Array, "*rows c"]) -> Float[Array, "*rows c"]:
    """Scales each vector by a power of two and subtracts its mean; constant vectors become exactly zero."""
    constant = jnp.max(x, axis=-1, keepdims=True) == jnp.min(x, axis=-1, keepdims=True)
    x = x * (1 / power_of_two(x))
    for _ in range(2):  # the second pass removes the rounding error of the first mean
        x = x - jnp.mean(x, axis=-1, keepdims=True)
    return jnp.where(constant, 0, x)


def as_matrices(
    a: ArrayInput,
    b: ArrayInput | None,
    where: str,
    *,
    names: tuple[str, str] = ("a", "b"),
    shapes: tuple[str, str] = ("(M, D)", "(K, D)"),
) -> tuple[jax.Array, jax.Array | None]:
    """Converts two arguments to float32 matrices of one width.

    Args:
      a: first argument.
      b: second argument, or None.
      where: public name of the kernel, for messages.
      names: names of the arguments, for messages.
      shapes: their shapes as documented, for messages.

    Raises:
      InvalidInputError: an argument is not a matrix of real numbers, or the widths differ.
    """
    left = as_float32(a, f"{where}: {names[0]}")
    right = None if b is None else as_float32(b, f"{where}: {names[1]}")
    if left.ndim != 2 or (right is not None and (right.ndim != 2 or right.shape[1] != left.shape[1])):
        raise InvalidInputError(
            f"`{names[0]}` is {shapes[0]} and `{names[1]}` is {shapes[1]}",
            got=f"{left.shape}" if right is None else f"{left.shape} and {right.shape}",
            where=where,
        )
    return left, right
