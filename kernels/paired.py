"""Distances between the vectors of two arrays, pair by pair: (..., N, C) x2 -> (..., N). A DDV is made of these.

Types: float32, bfloat16, float16, float64, integers and booleans in; float32 arithmetic and float32 out (see
`inputs`). There is no matrix product here, so `jax_default_matmul_precision` changes nothing.

Stability: cosine, correlation, jensenshannon and kl do not change when a vector is multiplied by a positive number
and neither under- nor overflow for finite vectors; nor does euclidean unless its result does. Cosine and correlation
have a relative error below 1e-5 down to distances of 1e-9 and up to 100,000 entries, because they come from a
difference of the two vectors that keeps what rounding to float32 would lose; so do jensenshannon and kl.

Zero rule: cosine and correlation are 0 between two zero (for correlation: constant) vectors and 1 between one and
another vector. jensenshannon and kl are 0 between two zero vectors and take their largest value, sqrt(log 2) and
infinity, between one and another vector. A vector with all entries below 1.2e-38 may count as zero.

NaN rule: NaN in a pair makes the distance of that pair NaN, and of no other. So does an infinity for the metrics that
scale, and a negative entry for jensenshannon and kl.

Bounds: cosine and correlation in [0, 2], hamming in [0, 1], jensenshannon in [0, sqrt(log 2)], the others at or above
0.

Gradients: 0 at equal vectors and at zero vectors for the metrics that scale, at equal vectors for all; hamming's is 0
everywhere, and kl's where it is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.dispatch import run
from modeldiff_jax.kernels.inputs import TINY, ArrayInput, as_float32, power_of_two

Vector: TypeAlias = Float[Array, " c"]
Scalar: TypeAlias = Float[Array, ""]


def paired_distances(
    a: ArrayInput, b: ArrayInput, metric: str = "cosine", *, implementation: str | None = None
) -> Float[Array, "*rows"]:
    """Distance between each vector of `a` and the vector of `b` at the same place.

    Args:
      a: (..., N, C), real numbers. A single vector (C,) is allowed.
      b: the same shape.
      metric: "cosine" (half the squared chord of the unit vectors), "correlation" (cosine after subtracting each
        vector's mean), "euclidean", "sqeuclidean", "cityblock", "chebyshev", "hamming" (the share of entries that
        differ), "jensenshannon" (the square root of the divergence) or "kl" (the divergence of a from b). The last two
        take vectors of non-negative entries, divide each by its sum, and use the natural logarithm.
      implementation: "xla", "reference", or None for the first that serves the call.

    Returns:
      (..., N), float32. Ranges, zero vectors and NaN: see the head of this file.

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


def _residual(a: Vector, b: Vector, factor: Scalar) -> Vector:
    """`a - factor * b`, with an error relative to itself rather than to `a`.

    Halves of 12 bits have exact products, and the first difference is exact where `a` is near `factor * b`. No step
    depends on how the one before was rounded, so a compiler that joins multiply and subtract can only make it better.
    """
    upper = partial(lax.reduce_precision, exponent_bits=8, mantissa_bits=11)
    factor_upper, b_upper = upper(factor), upper(b)
    return ((a - factor_upper * b_upper) - factor_upper * (b - b_upper)) - (factor - factor_upper) * b


def _zero_rule(a_zero: Array, b_zero: Array, one_zero: float, otherwise: Scalar) -> Scalar:
    applies = (a_zero | b_zero) & ~jnp.isnan(otherwise)
    return jnp.where(applies, jnp.where(a_zero & b_zero, 0.0, one_zero), otherwise)


def _cosine(a: Vector, b: Vector) -> Scalar:
    a, b = a * (1 / power_of_two(a)), b * (1 / power_of_two(b))
    return _half_chord_square(a, b, lambda factor: _residual(a, b, factor))


def _correlation(a: Vector, b: Vector) -> Scalar:
    a_constant, b_constant = jnp.max(a) == jnp.min(a), jnp.max(b) == jnp.min(b)
    a, b = a * (1 / power_of_two(a)), b * (1 / power_of_two(b))
    (a, a_lost), (b, b_lost) = _less_mean(a), _less_mean(b)

    def residual(factor: Scalar) -> Vector:
        return _recentred(_residual(a, b, factor) + (a_lost - factor * b_lost))

    a_centred, b_centred = jnp.where(a_constant, 0, _recentred(a)), jnp.where(b_constant, 0, _recentred(b))
    return _half_chord_square(a_centred, b_centred, residual)


def _less_mean(x: Vector) -> tuple[Vector, Vector]:
    """`x` less its rounded mean, and what rounding that difference lost: the two add up exactly (Knuth's two-sum)."""
    mean = jnp.mean(x)
    difference = x - mean
    back = difference - x
    return difference, (x - (difference - back)) - (mean + back)


def _recentred(x: Vector) -> Vector:
    return x - jnp.mean(x)


def _half_chord_square(a: Vector, b: Vector, residual: Callable[[Scalar], Vector]) -> Scalar:
    # 1 - cos = (|r|^2 - (|a| - |b'|)^2) / (2 |a| |b'|) with b' = factor * b and r = a - b', whatever the factor; where
    # |b'| = |a| it is half the squared chord. |a| - |b'| = r.(a + b') / (|a| + |b'|) makes up for rounding the factor.
    a_square, b_square = jnp.sum(a * a), jnp.sum(b * b)
    a_zero, b_zero = a_square == 0, b_square == 0
    a_norm, b_norm = jnp.sqrt(jnp.where(a_zero, 1, a_square)), jnp.sqrt(jnp.where(b_zero, 1, b_square))
    factor = lax.stop_gradient(a_norm / b_norm)
    b_norm = factor * b_norm
    r = residual(factor)
    r_square = jnp.sum(r * r)
    excess = (2 * jnp.sum(r * a) - r_square) / (a_norm + b_norm)
    distance = jnp.clip((r_square - excess * excess) / (2 * a_norm * b_norm), 0, 2)
    return _zero_rule(a_zero, b_zero, 1.0, distance)


def _euclidean(a: Vector, b: Vector) -> Scalar:
    r = a - b
    scale = power_of_two(r)
    square = jnp.sum((r * (1 / scale)) ** 2)
    zero = square == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, square)) * scale[0])


def _sqeuclidean(a: Vector, b: Vector) -> Scalar:
    return jnp.sum((a - b) ** 2)


def _magnitude(x: Vector) -> Vector:
    return x * jnp.sign(x)  # whose gradient at 0 is 0, where that of jnp.abs is 1


def _cityblock(a: Vector, b: Vector) -> Scalar:
    return jnp.sum(_magnitude(a - b))


def _chebyshev(a: Vector, b: Vector) -> Scalar:
    return jnp.max(_magnitude(a - b))


def _hamming(a: Vector, b: Vector) -> Scalar:
    return jnp.mean(jnp.where(jnp.isnan(a) | jnp.isnan(b), jnp.nan, (a != b).astype(jnp.float32)))


class _Masses(NamedTuple):
    """Two distributions over one total: `a` and `b` sum to `total`, `r` is a - b and `t` is (a - b) / (a + b)."""

    a: Vector
    b: Vector
    r: Vector
    t: Vector
    total: Scalar
    a_zero: Array
    b_zero: Array


def _masses(a: Vector, b: Vector) -> _Masses:
    a, b = (jnp.where((x >= 0) & (x < jnp.inf), x, jnp.nan) for x in (a, b))
    a, b = a * (1 / power_of_two(a)), b * (1 / power_of_two(b))
    a_sum, b_sum = jnp.sum(a), jnp.sum(b)
    a_zero, b_zero = a_sum == 0, b_sum == 0
    total = jnp.where(a_zero, 1, a_sum)
    factor = total / jnp.where(b_zero, 1, b_sum)
    r = _residual(a, b, factor)
    b = factor * b
    empty = a + b == 0
    return _Masses(a, b, r, jnp.where(empty, 0, r / jnp.where(empty, 1, a + b)), total, a_zero, b_zero)


def _log(x: Vector) -> Vector:
    return jnp.log(jnp.maximum(x, TINY))  # finite, so that 0 log 0 is 0 and has a finite gradient


def _jensenshannon(a: Vector, b: Vector) -> Scalar:
    # Entry by entry (a + b) / 2 * ((1 + t) log(1 + t) + (1 - t) log(1 - t)), which is never negative, so that nothing
    # cancels between entries. Near t = 0 the bracket is its series. sum(r) would be 0 but for rounding, whose share is
    # taken off.
    m = _masses(a, b)
    near = jnp.abs(m.t) < 0.25
    t2 = jnp.where(near, m.t, 0) ** 2
    series = t2 * (1 + t2 * (1 / 6 + t2 * (1 / 15 + t2 * (1 / 28 + t2 / 45))))
    t = jnp.where(near, 0.5, m.t)
    direct = (1 + t) * _log(1 + t) + (1 - t) * _log(1 - t)
    divergence = jnp.sum((m.a + m.b) * jnp.where(near, series, direct)) - jnp.sum(m.r) ** 2 / (2 * m.total)
    divergence = jnp.clip(divergence / (4 * m.total), 0, math.log(2))
    zero = divergence == 0
    distance = jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, divergence)))
    return _zero_rule(m.a_zero, m.b_zero, math.sqrt(math.log(2)), distance)


def _kl(a: Vector, b: Vector) -> Scalar:
    # Entry by entry a log(a / b) - a + b, which is never negative and adds only sum(b) - sum(a) = 0. Near t = 0 it is
    # (a + b) * ((1 + t) artanh(t) - t), as a series.
    m = _masses(a, b)
    near = jnp.abs(m.t) < 0.25
    t = jnp.where(near, m.t, 0)
    t2 = t * t
    series = t2 * (1 + t2 * (1 / 3 + t2 * (1 / 5 + t2 * (1 / 7 + t2 / 9)))) + t * t2 * (
        1 / 3 + t2 * (1 / 5 + t2 * (1 / 7 + t2 * (1 / 9 + t2 / 11)))
    )
    direct = m.a * (_log(m.a) - _log(m.b)) - m.r
    divergence = jnp.sum(jnp.where(near, (m.a + m.b) * series, direct)) - jnp.sum(m.r) ** 2 / (2 * m.total)
    divergence = jnp.maximum(divergence / m.total, 0)
    impossible = jnp.any((m.b == 0) & (m.a > 0))
    return _zero_rule(m.a_zero, m.b_zero, math.inf, jnp.where(impossible, math.inf, divergence))


METRICS: dict[str, Callable[[Vector, Vector], Scalar]] = {
    "chebyshev": _chebyshev,
    "cityblock": _cityblock,
    "correlation": _correlation,
    "cosine": _cosine,
    "euclidean": _euclidean,
    "hamming": _hamming,
    "jensenshannon": _jensenshannon,
    "kl": _kl,
    "sqeuclidean": _sqeuclidean,
}


def _rows(x: Float[Array, "*rows c"]) -> Float[Array, "n c"]:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


@partial(jax.jit, static_argnames="metric")
@jax.named_scope("paired_distances.reference")
def reference(a: Float[Array, "*rows c"], b: Float[Array, "*rows c"], metric: str) -> Float[Array, "*rows"]:
    """The definition: one pair after the other."""
    pair = METRICS[metric]
    return lax.map(lambda vectors: pair(*vectors), (_rows(a), _rows(b))).reshape(a.shape[:-1])


# A CPU computes in blocks of this many entries of each array: 96 KiB, which with the intermediate results stay in a
# core's own cache. A third more takes five times as long: every intermediate array is then memory newly asked of
# the operating system. A few blocks' worth is done at once.
_BLOCK = 24 * 1024
_FEW = 16


@partial(jax.jit, static_argnames="metric")
@jax.named_scope("paired_distances.xla")
def xla(a: Float[Array, "*rows c"], b: Float[Array, "*rows c"], metric: str) -> Float[Array, "*rows"]:
    """All pairs at once, or in passes over all of them, or on a CPU in blocks that fit its cache."""
    rows = _rows(a), _rows(b)
    if a.size <= _FEW * _BLOCK:
        distances = jax.vmap(METRICS[metric])(*rows)
    elif metric in _PASSES:
        distances = _in_passes(*rows, metric)
    else:
        distances = _in_blocks(*rows, metric)
    return distances.reshape(a.shape[:-1])


def _in_blocks(a: Float[Array, "n c"], b: Float[Array, "n c"], metric: str) -> Float[Array, " n"]:
    pair = METRICS[metric]

    def blocks(a: Array, b: Array) -> Array:
        return lax.map(lambda vectors: pair(*vectors), (a, b), batch_size=max(1, _BLOCK // a.shape[-1]))

    return lax.platform_dependent(a, b, cpu=blocks, default=jax.vmap(pair))


# In passes: the sums that a distance is made of, of all pairs at once and read from memory once, without scaling the
# vectors first. Pairs whose sums are so small or large that digits are lost are computed again, in blocks.
_SAFE = 1e-24, 1e30
_NEAR = 0.1
"""Cosine distances below it need the second pass: 1 - cosine has an absolute error of up to 1e-6."""
_LANES = 4  # sums side by side, which a CPU adds up in vectors; one alone waits for each addition to be done
_WIDE = 1024  # entries added up one after the other in all lanes; the sums of longer vectors are of parts
Terms: TypeAlias = Callable[[Array, Array], tuple[Array, ...]]


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _in_passes(a: Float[Array, "n c"], b: Float[Array, "n c"], metric: str) -> Float[Array, " n"]:
    distances, unsafe = _PASSES[metric](a, b)
    again = partial(_again, metric=metric), partial(_again_at_once, metric=metric)
    return lax.platform_dependent(distances, unsafe, a, b, cpu=again[0], default=again[1])


def _again(distances: Array, unsafe: Array, a: Array, b: Array, metric: str) -> Array:
    """`distances` with the blocks that hold unsafe pairs computed as they are defined."""
    n, width = a.shape
    rows = max(1, min(n, _BLOCK // width))
    count = -(-n // rows)

    def block(k: Array, distances: Array) -> Array:
        start = jnp.minimum(numbers[k] * rows, n - rows)  # the last block moves back to fit
        x, y = (lax.dynamic_slice_in_dim(side, start, rows) for side in (a, b))
        return lax.dynamic_update_slice_in_dim(distances, jax.vmap(METRICS[metric])(x, y), start, 0)

    blocks = jnp.pad(unsafe, (0, count * rows - n)).reshape(count, rows).any(1)
    numbers = jnp.nonzero(blocks, size=count, fill_value=0)[0].astype(jnp.int32)
    return lax.fori_loop(0, jnp.sum(blocks, dtype=jnp.int32), block, distances)


def _again_at_once(distances: Array, unsafe: Array, a: Array, b: Array, metric: str) -> Array:
    every = jax.vmap(METRICS[metric])
    return lax.cond(unsafe.any(), lambda: jnp.where(unsafe, every(a, b), distances), lambda: distances)


@_in_passes.defjvp
def _in_blocks_too(metric: str, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    tangent = jax.jvp(lambda a, b: _in_blocks(a, b, metric), primals, tangents)[1]
    return _in_passes(*primals, metric), tangent


def _cosine_in_passes(a: Float[Array, "n c"], b: Float[Array, "n c"]) -> tuple[Array, Array]:
    a_square, b_square, product = _sums(lambda x, y: (x * x, y * y, x * y), a, b)
    unsafe = _unsafe(a_square) | _unsafe(b_square)
    a_norm, b_norm = (jnp.sqrt(jnp.where(unsafe, 1, square)) for square in (a_square, b_square))
    quick = 1 - product / (a_norm * b_norm)

    def with_residual(a: Array, b: Array) -> Array:  # as `_half_chord_square`
        factor = a_norm / b_norm

        def terms(x: Array, y: Array) -> tuple[Array, Array]:
            r = _residual(x, y, jnp.expand_dims(factor, range(1, x.ndim)))
            return r * r, r * x

        r_square, r_a = _sums(terms, a, b)
        length = factor * b_norm
        excess = (2 * r_a - r_square) / (a_norm + length)
        return jnp.where(quick < _NEAR, (r_square - excess * excess) / (2 * a_norm * length), quick)

    near = jnp.any((quick < _NEAR) & ~unsafe)
    return jnp.clip(lax.cond(near, with_residual, lambda a, b: quick, a, b), 0, 2), unsafe


def _euclidean_in_passes(a: Float[Array, "n c"], b: Float[Array, "n c"]) -> tuple[Array, Array]:
    (square,) = _sums(lambda x, y: ((x - y) ** 2,), a, b)
    return jnp.sqrt(square), _unsafe(square)


_PASSES: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "cosine": _cosine_in_passes,
    "euclidean": _euclidean_in_passes,
}
"""Distances, and which of them are to be computed again."""


def _unsafe(square: Float[Array, " n"]) -> Bool[Array, " n"]:
    return ~((square > _SAFE[0]) & (square < _SAFE[1]))


def _sums(terms: Terms, a: Float[Array, "n c"], b: Float[Array, "n c"]) -> list[Float[Array, " n"]]:
    """Sums over the vectors of each of `terms`, which are elementwise."""

    def on_cpu(a: Array, b: Array) -> list[Array]:
        n, width = a.shape
        parts = width // _WIDE if width > _WIDE else 0
        whole = parts * _WIDE
        even = width - (width - whole) % _LANES
        sums: list[list[Array]] = []
        if whole:
            split = (x[:, :whole].reshape(n, parts, _WIDE // _LANES, _LANES) for x in (a, b))
            sums.append([jnp.sum(part, axis=1) for part in _in_lanes(terms, *split)])
        if even > whole:
            split = (x[:, whole:even].reshape(n, (even - whole) // _LANES, _LANES) for x in (a, b))
            sums.append(_in_lanes(terms, *split))
        if width > even:
            sums.append([jnp.sum(term, axis=1) for term in terms(a[:, even:], b[:, even:])])
        return [sum(found[1:], found[0]) for found in zip(*sums, strict=True)]

    def elsewhere(a: Array, b: Array) -> list[Array]:
        return [jnp.sum(term, axis=1) for term in terms(a, b)]

    return lax.platform_dependent(a, b, cpu=on_cpu, default=elsewhere)


def _in_lanes(terms: Terms, a: Float[Array, "n *parts w l"], b: Float[Array, "n *parts w l"]) -> list[Array]:
    """Sums over the last two axes, in one reduction whatever their number."""
    added = [terms(a[..., lane], b[..., lane]) for lane in range(_LANES)]
    flat = [term for lane in added for term in lane]
    zero = [jnp.float32(0)] * len(flat)
    sums = lax.reduce(flat, zero, lambda x, y: [u + v for u, v in zip(x, y, strict=True)], (flat[0].ndim - 1,))
    each = len(added[0])
    return [sum(sums[term + each :: each], sums[term]) for term in range(each)]


VARIANTS: dict[str, Callable[[Array, Array, str], Array]] = {"xla": xla, "reference": reference}
