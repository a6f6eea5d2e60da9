"""Roundings that definitions prescribe and XLA would leave out, and saturation.

XLA rewrites a division by a broadcast scalar as a product with its reciprocal, and on CPU contracts a multiplication
and the addition after it into one operation. Either changes last bits; if the result is then rounded to an integer, as
in quantisation, exact ties are rounded to the other neighbour.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num


def finite_range(dtype: Any) -> tuple[Any, Any]:
    """Returns the smallest and the largest finite value of a type, False and True for bool."""
    if np.dtype(dtype).kind == "b":
        return False, True
    info: Any = jnp.finfo if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo
    return info(dtype).min, info(dtype).max


def divide(x: Float[Array, ...], divisor: Float[Array, ...]) -> Float[Array, ...]:
    """Returns `x / divisor`, correctly rounded.

    The divisor is selected by a condition that always holds, so that XLA does not know that it is one number. (An
    optimisation barrier would do that too, but materialise an array of divisors.)

    Args:
      x: the dividend.
      divisor: of the shape of `x`, or one number.
    """
    return x / jnp.where(x == x, divisor, x)


def rounded(product: Float[Array, ...]) -> Float[Array, ...]:
    """Returns a product, rounded before anything is added to it.

    A maximum with the smallest finite number separates the multiplication from the addition; a maximum with -inf would
    be optimised away. Products of -inf are returned as they are.
    """
    return jnp.where(product == -jnp.inf, product, jnp.maximum(product, finite_range(product.dtype)[0]))


def multiply_add(addend: Float[Array, ...], x: Num[Array, ...], factor: Float[Array, ""]) -> Float[Array, ...]:
    """Returns `addend + x * factor`, rounded once, as a fused multiply-add of the processor rounds it.

    The factor is split into two parts of at most 16 bits, so that both products are exact. The rounding error of the
    sum with the larger product is added together with the smaller one (Knuth's two-sum).

    Args:
      addend: float32, of the shape of `x` or one number.
      x: integers of 8 bits, or floats with the values of 8-bit integers.
      factor: float32.
    """
    whole = x.astype(jnp.float32)
    bits = jax.lax.bitcast_convert_type(factor, jnp.uint32)
    upper = jax.lax.bitcast_convert_type(bits & np.uint32(0xFFFFFF00), jnp.float32)
    large, small = whole * upper, whole * (factor - upper)
    total = addend + large
    added = total - addend
    error = (addend - (total - added)) + (large - added)
    return total + (error + small)


def saturate(x: Float[Array, ...], dtype: Any) -> Num[Array, ...]:
    """Returns whole numbers in floats as integers of a type, saturated at the ends of its range."""
    return jnp.clip(x, *map(float, finite_range(dtype))).astype(dtype)
