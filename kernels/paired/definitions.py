"""Definitions of the metrics: each the distance of one pair of vectors, in float32. See `paired` for their rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from modeldiff_jax.kernels.vectors import TINY, power_of_two

Vector: TypeAlias = Float[Array, " c"]
Scalar: TypeAlias = Float[Array, ""]


def residual_of(a: Float[Array, "*n"], b: Float[Array, "*n"], factor: Float[Array, "*factor"]) -> Float[Array, "*n"]:
    """Computes `a - factor * b` with an error relative to the result rather than to `a`.

    Halves of 12 bits have exact products, and the first difference is exact where `a` is near `factor * b`. No step
    depends on how the step before was rounded, so a compiler that fuses multiply and subtract can only improve it.
    """
    upper = partial(lax.reduce_precision, exponent_bits=8, mantissa_bits=11)
    factor_upper, b_upper = upper(factor), upper(b)
    return ((a - factor_upper * b_upper) - factor_upper * (b - b_upper)) - (factor - factor_upper) * b


def _apply_zero_rule(a_zero: Array, b_zero: Array, if_one_zero: float, otherwise: Scalar) -> Scalar:
    applies = (a_zero | b_zero) & ~jnp.isnan(otherwise)
    return jnp.where(applies, jnp.where(a_zero & b_zero, jnp.float32(0), jnp.float32(if_one_zero)), otherwise)


def _cosine(a: Vector, b: Vector) -> Scalar:
    a, b = a * (1 / power_of_two(a)), b * (1 / power_of_two(b))
    return _half_squared_chord(a, b, lambda factor: residual_of(a, b, factor))


def _correlation(a: Vector, b: Vector) -> Scalar:
    a_constant, b_constant = jnp.max(a) == jnp.min(a), jnp.max(b) == jnp.min(b)
    a, b = a * (1 / power_of_two(a)), b * (1 / power_of_two(b))
    (a, a_error), (b, b_error) = _centred_with_error(a), _centred_with_error(b)

    def residual(factor: Scalar) -> Vector:
        return _recentred(residual_of(a, b, factor) + (a_error - factor * b_error))

    a_centred, b_centred = jnp.where(a_constant, 0, _recentred(a)), jnp.where(b_constant, 0, _recentred(b))
    return _half_squared_chord(a_centred, b_centred, residual)


def _centred_with_error(x: Vector) -> tuple[Vector, Vector]:
    """Returns `x` minus its rounded mean, and the rounding error of the difference (Knuth's two-sum)."""
    mean = jnp.mean(x)
    difference = x - mean
    back = difference - x
    return difference, (x - (difference - back)) - (mean + back)


def _recentred(x: Vector) -> Vector:
    return x - jnp.mean(x)


def _half_squared_chord(a: Vector, b: Vector, residual: Callable[[Scalar], Vector]) -> Scalar:
    # 1 - cos = (|r|^2 - (|a| - |b'|)^2) / (2 |a| |b'|) with b' = factor * b and r = a - b', for every factor; where
    # |b'| = |a| it is half the squared chord. |a| - |b'| = r.(a + b') / (|a| + |b'|) corrects for rounding the factor.
    a_square, b_square = jnp.sum(a * a), jnp.sum(b * b)
    a_zero, b_zero = a_square == 0, b_square == 0
    a_norm, b_norm = jnp.sqrt(jnp.where(a_zero, 1, a_square)), jnp.sqrt(jnp.where(b_zero, 1, b_square))
    factor = lax.stop_gradient(a_norm / b_norm)
    b_norm = factor * b_norm
    r = residual(factor)
    r_square = jnp.sum(r * r)
    excess = (2 * jnp.sum(r * a) - r_square) / (a_norm + b_norm)
    distance = jnp.clip((r_square - excess * excess) / (2 * a_norm * b_norm), 0, 2)
    return _apply_zero_rule(a_zero, b_zero, 1.0, distance)


def _euclidean(a: Vector, b: Vector) -> Scalar:
    r = a - b
    scale = power_of_two(r)
    square = jnp.sum((r * (1 / scale)) ** 2)
    zero = square == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, square)) * scale[0])


def _sqeuclidean(a: Vector, b: Vector) -> Scalar:
    return jnp.sum((a - b) ** 2)


def _magnitude(x: Vector) -> Vector:
    return x * jnp.sign(x)  # has gradient 0 at 0, unlike jnp.abs


def _cityblock(a: Vector, b: Vector) -> Scalar:
    return jnp.sum(_magnitude(a - b))


def _chebyshev(a: Vector, b: Vector) -> Scalar:
    return jnp.max(_magnitude(a - b))


def _hamming(a: Vector, b: Vector) -> Scalar:
    return jnp.mean(jnp.where(jnp.isnan(a) | jnp.isnan(b), jnp.nan, (a != b).astype(jnp.float32)))


class _Masses(NamedTuple):
    """Two distributions scaled to one total.

    `a` and `b` sum to `total`, `difference` is a - b, and `relative` is (a - b) / (a + b).
    """

    a: Vector
    b: Vector
    difference: Vector
    relative: Vector
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
    difference = residual_of(a, b, factor)
    b = factor * b
    empty = a + b == 0
    relative = jnp.where(empty, 0, difference / jnp.where(empty, 1, a + b))
    return _Masses(a, b, difference, relative, total, a_zero, b_zero)


def _log(x: Vector) -> Vector:
    return jnp.log(jnp.maximum(x, TINY))  # finite, so 0 log 0 is 0 and has a finite gradient


def _jensenshannon(a: Vector, b: Vector) -> Scalar:
    # Per entry (a + b) / 2 * ((1 + t) log(1 + t) + (1 - t) log(1 - t)) with t the relative difference: never negative,
    # so nothing cancels between entries. Near t = 0 the bracket is its series. The differences sum to 0 but for
    # rounding, whose share is subtracted.
    m = _masses(a, b)
    near = jnp.abs(m.relative) < 0.25
    t2 = jnp.where(near, m.relative, 0) ** 2
    series = t2 * (1 + t2 * (1 / 6 + t2 * (1 / 15 + t2 * (1 / 28 + t2 / 45))))
    t = jnp.where(near, 0.5, m.relative)
    direct = (1 + t) * _log(1 + t) + (1 - t) * _log(1 - t)
    divergence = jnp.sum((m.a + m.b) * jnp.where(near, series, direct))
    divergence = divergence - jnp.sum(m.difference) ** 2 / (2 * m.total)
    divergence = jnp.clip(divergence / (4 * m.total), 0, math.log(2))
    zero = divergence == 0
    distance = jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, divergence)))
    return _apply_zero_rule(m.a_zero, m.b_zero, math.sqrt(math.log(2)), distance)


def _kl(a: Vector, b: Vector) -> Scalar:
    # Per entry a log(a / b) - a + b: never negative, and adds only sum(b) - sum(a) = 0. Near t = 0 it is
    # (a + b) * ((1 + t) artanh(t) - t), as a series.
    m = _masses(a, b)
    near = jnp.abs(m.relative) < 0.25
    t = jnp.where(near, m.relative, 0)
    t2 = t * t
    series = t2 * (1 + t2 * (1 / 3 + t2 * (1 / 5 + t2 * (1 / 7 + t2 / 9)))) + t * t2 * (
        1 / 3 + t2 * (1 / 5 + t2 * (1 / 7 + t2 * (1 / 9 + t2 / 11)))
    )
    direct = m.a * (_log(m.a) - _log(m.b)) - m.difference
    divergence = jnp.sum(jnp.where(near, (m.a + m.b) * series, direct))
    divergence = divergence - jnp.sum(m.difference) ** 2 / (2 * m.total)
    divergence = jnp.maximum(divergence / m.total, 0)
    impossible = jnp.any((m.b == 0) & (m.a > 0))
    return _apply_zero_rule(m.a_zero, m.b_zero, math.inf, jnp.where(impossible, math.inf, divergence))


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
