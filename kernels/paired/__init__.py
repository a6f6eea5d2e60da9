"""Distances between the vectors of two arrays, pair by pair: (..., N, C) x2 -> (..., N). A DDV is made of these.

Types: float32, bfloat16, float16, float64, integers and booleans in; float32 arithmetic and float32 out (see
`inputs`). There is no matrix product, so `jax_default_matmul_precision` has no effect.

Stability: cosine, correlation, jensenshannon and kl do not change when a vector is multiplied by a positive number,
and neither under- nor overflow for finite vectors; nor does euclidean unless its result does. Cosine and correlation
have a relative error below 1e-5 down to distances of 1e-9 and up to 100,000 entries, because they are computed from a
difference of the two vectors that keeps what rounding to float32 would lose; so are jensenshannon and kl.

Zero rule: cosine and correlation are 0 between two zero (for correlation: constant) vectors and 1 between such a vector
and another one. jensenshannon and kl are 0 between two zero vectors, and between a zero vector and another one take
their largest values, sqrt(log 2) and infinity. A vector with all entries below 1.2e-38 may count as zero.

NaN rule: NaN in a pair makes the distance of that pair NaN, and of no other. So does an infinity for the metrics that
scale, and a negative entry for jensenshannon and kl.

Bounds: cosine and correlation in [0, 2], hamming in [0, 1], jensenshannon in [0, sqrt(log 2)], the others at or above
0.

Gradients: 0 at equal vectors for all metrics, and at zero vectors for those that scale; hamming's is 0 everywhere, and
kl's where it is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax
from jax import lax
from jaxtyping import Array, Float

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.dispatch import run
from modeldiff_jax.kernels.inputs import ArrayInput, as_float32
from modeldiff_jax.kernels.paired.definitions import METRICS as METRICS
from modeldiff_jax.kernels.paired.passes import BLOCK, BY_SUMS, in_blocks, in_passes

_FEW_BLOCKS = 16
"""Arrays of up to this many blocks are computed whole."""


def paired_distances(
    a: ArrayInput, b: ArrayInput, metric: str = "cosine", *, implementation: str | None = None
) -> Float[Array, "*rows"]:
    """Returns the distance between each vector of `a` and the vector of `b` at the same index.

    Args:
      a: (..., N, C), real numbers. A single vector (C,) is allowed.
      b: the same shape.
      metric: "cosine" (half the squared chord of the unit vectors), "correlation" (cosine after subtracting each
        vector's mean), "euclidean", "sqeuclidean", "cityblock", "chebyshev", "hamming" (the share of entries that
        differ), "jensenshannon" (the square root of the divergence) or "kl" (the divergence of a from b). The last two
        take vectors of non-negative entries, divide each by its sum, and use the natural logarithm.
      implementation: "xla", "reference", or None for the first that serves the call.

    Returns:
      (..., N), float32: cosine and correlation in [0, 2], hamming in [0, 1], jensenshannon in [0, sqrt(log 2)], the
      others at or above 0. Cosine and correlation are 0 between two zero (for correlation: constant) vectors and 1
      between one of these and another vector. NaN in a pair makes its distance NaN.

    Raises:
      InvalidInputError: shapes differ, a type is not real, or a name is unknown.
    """
    left, right = as_float32(a, "paired_distances: a"), as_float32(b, "paired_distances: b")
    if left.shape != right.shape:
        raise InvalidInputError(
            "`a` and `b` have one shape (..., N, C)", got=f"{left.shape} and {right.shape}", where="paired_distances"
        )
    if metric not in METRICS:
        raise InvalidInputError(f"`metric` is one of {', '.join(METRICS)}", got=repr(metric), where="paired_distances")
    return run("paired_distances", VARIANTS, implementation, left, right, metric)


def _flat(x: Float[Array, "*rows c"]) -> Float[Array, "n c"]:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


@partial(jax.jit, static_argnames="metric")
@jax.named_scope("paired_distances.reference")
def reference(a: Float[Array, "*rows c"], b: Float[Array, "*rows c"], metric: str) -> Float[Array, "*rows"]:
    """Computes one pair after another: the definition."""
    distance = METRICS[metric]
    return lax.map(lambda pair: distance(*pair), (_flat(a), _flat(b))).reshape(a.shape[:-1])


@partial(jax.jit, static_argnames="metric")
@jax.named_scope("paired_distances.xla")
def xla(a: Float[Array, "*rows c"], b: Float[Array, "*rows c"], metric: str) -> Float[Array, "*rows"]:
    """Computes all pairs at once or in passes over all of them, on a CPU also in blocks that fit its cache."""
    pairs = _flat(a), _flat(b)
    if a.size <= _FEW_BLOCKS * BLOCK:
        distances = jax.vmap(METRICS[metric])(*pairs)
    elif metric in BY_SUMS:
        distances = in_passes(*pairs, metric)
    else:
        distances = in_blocks(*pairs, metric)
    return distances.reshape(a.shape[:-1])


VARIANTS: dict[str, Callable[[Array, Array, str], Array]] = {"xla": xla, "reference": reference}
