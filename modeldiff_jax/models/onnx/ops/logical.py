"""Comparison, logic and bits."""

from __future__ import annotations

import numpy as np

from modeldiff_jax.models.graph.values import Value, concrete, xp
from modeldiff_jax.models.onnx.ops.common import register_binary
from modeldiff_jax.models.onnx.registration import op

register_binary("And", lambda a, b: xp(a, b).logical_and(a, b))
register_binary("Or", lambda a, b: xp(a, b).logical_or(a, b))
register_binary("Xor", lambda a, b: xp(a, b).logical_xor(a, b))
register_binary("Greater", lambda a, b: xp(a, b).greater(a, b))
register_binary("Less", lambda a, b: xp(a, b).less(a, b))


def _equal(a: Value, b: Value) -> Value:
    # on strings and symbolic sizes numpy compares objects
    return np.equal(a, b).astype(bool) if concrete(a, b) else xp(a, b).equal(a, b)


register_binary("Equal", _equal)


@op("GreaterOrEqual")
def greater_or_equal(a: Value, b: Value, /) -> Value:
    """Returns whether a >= b, element by element."""
    return xp(a, b).greater_equal(a, b)


@op("LessOrEqual")
def less_or_equal(a: Value, b: Value, /) -> Value:
    """Returns whether a <= b, element by element."""
    return xp(a, b).less_equal(a, b)


@op("Not")
def not_(x: Value, /) -> Value:
    """Returns the negation of each element."""
    return xp(x).logical_not(x)


@op("BitwiseAnd")
def bitwise_and(a: Value, b: Value, /) -> Value:
    """Returns the bits set in both."""
    return xp(a, b).bitwise_and(a, b)


@op("BitwiseOr")
def bitwise_or(a: Value, b: Value, /) -> Value:
    """Returns the bits set in either."""
    return xp(a, b).bitwise_or(a, b)


@op("BitwiseXor")
def bitwise_xor(a: Value, b: Value, /) -> Value:
    """Returns the bits set in exactly one."""
    return xp(a, b).bitwise_xor(a, b)


@op("BitwiseNot")
def bitwise_not(x: Value, /) -> Value:
    """Returns the bits inverted."""
    return xp(x).invert(x)


@op("IsNaN")
def is_nan(x: Value, /) -> Value:
    """Returns whether each element is NaN."""
    return xp(x).isnan(x)


@op("IsInf")
def is_inf(x: Value, /, *, detect_negative: int = 1, detect_positive: int = 1) -> Value:
    """Returns whether each element is infinite, of the signs that the attributes select."""
    m = xp(x)
    return m.isinf(x) & (((x > 0) & bool(detect_positive)) | ((x < 0) & bool(detect_negative)))
