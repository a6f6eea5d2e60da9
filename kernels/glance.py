"""Of each bin of rows the best one, and the score of its second: all that a first look must keep, and all in cache.

Which row of a bin is the best stands in the last bits of its score. All scores are made positive first, so that those
bits only ever lower a score by a few units in its last place, and 0 is free to mean none.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int


def bin_size(n: int) -> int:
    """How many of `n` rows share a bin: so few that the best rows seldom meet, and bins few enough to be sorted."""
    return 8 if n < 2**16 else 16


def slack(n: int) -> int:
    """What positive scores and codes lose: units of 2**-24, relative to half of what makes scores positive."""
    return 6 * (bin_size(n) + 1)


def two_best(
    products: Float[Array, "a b"],
    shift: Float[Array, ...],
    bias: Float[Array, ...],
    never: Bool[Array, ""],
    skip: Int[Array, ...],
    axis: int,
    size: int,
) -> tuple[Float[Array, ...], Float[Array, ...]]:
    """The best score of each bin along an axis, with its row in its last bits, and the second best.

    Args:
      products: scores but for `shift` and `bias`.
      shift: what makes scores positive; broadcast along the axis.
      bias: of each row; along the axis.
      never: false; what the compiler must not know.
      skip: a place along the axis whose score does not count, or none; broadcast along the axis.
      axis: that of the rows.
      size: of a bin, a power of two. Bin i has every (rows / size)-th row, from i.
    """
    per = products.shape[axis] // size

    def bins(products: Array) -> tuple[Array, Array]:
        best = second = jnp.zeros(())
        for i in range(size):
            x = lax.slice_in_dim(products, i * per, (i + 1) * per, axis=axis)
            here = lax.broadcasted_iota(jnp.int32, x.shape, axis) + i * per
            x = x + lax.slice_in_dim(bias, i * per, (i + 1) * per, axis=axis) + shift
            x = jnp.where(here == skip, 0, jnp.maximum(x, 0))
            x = lax.bitcast_convert_type((lax.bitcast_convert_type(x, jnp.int32) & -size) | i, jnp.float32)
            best, second = (jnp.maximum(best, x), jnp.maximum(second, jnp.minimum(best, x))) if i else (x, 0 * x)
        return best, second

    # A branch, because a CPU's loop over what is computed and put in its place at once is slow, and on one core.
    shape = (products.shape[0], per) if axis else (per, products.shape[1])
    nothing = jnp.zeros(shape, jnp.float32)
    return lax.cond(never, lambda _: (nothing, nothing), bins, products)


def place(best: Float[Array, ...], size: int) -> Int[Array, ...]:
    """Which of its bin's rows a best score is of."""
    return lax.bitcast_convert_type(best, jnp.int32) & (size - 1)
