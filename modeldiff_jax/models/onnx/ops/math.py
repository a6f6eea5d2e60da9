"""Arithmetic: element by element, and matrix products."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.rounding import finite_range
from modeldiff_jax.models.graph.registry import Index, Static
from modeldiff_jax.models.graph.values import (
    HIGHEST,
    Value,
    along_axis,
    astype,
    axis_index,
    concrete,
    in_float32,
    is_integer,
    is_narrow,
    widened,
    xp,
)
from modeldiff_jax.models.onnx.ops.common import register_binary, register_unary
from modeldiff_jax.models.onnx.registration import op

# ONNX's name -> numpy's name, of operators that had one more attribute before opset 6, and of all others
_OLD_UNARY = {
    "Abs": "abs",
    "Ceil": "ceil",
    "Exp": "exp",
    "Floor": "floor",
    "Log": "log",
    "Neg": "negative",
    "Sqrt": "sqrt",
    "Tanh": "tanh",
}
_UNARY = {
    "Acos": "arccos",
    "Acosh": "arccosh",
    "Asin": "arcsin",
    "Asinh": "arcsinh",
    "Atan": "arctan",
    "Atanh": "arctanh",
    "Cos": "cos",
    "Cosh": "cosh",
    "Round": "rint",  # halves to even
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Tan": "tan",
}


def _erf(x: Value, /) -> Value:
    return astype(jax.scipy.special.erf(jnp.asarray(x, jnp.result_type(x, jnp.float32))), x.dtype)


def _reciprocal(x: Value) -> Value:
    return xp(x).ones((), x.dtype) / x


def _sigmoid(x: Value) -> Value:
    return jax.nn.sigmoid(x)


def _by_name(name: str) -> Callable[[Value], Value]:
    def elementwise(x: Value, /) -> Value:
        if name in ("floor", "ceil", "rint") and is_integer(x):  # numpy would convert to float64
            return x
        return getattr(xp(x), name)(x)

    return elementwise


for _name, _numpy_name in _UNARY.items():
    op(_name)(_by_name(_numpy_name))
op("Erf")(_erf)
for _name, _numpy_name in _OLD_UNARY.items():
    register_unary(_name, _by_name(_numpy_name))
register_unary("Reciprocal", _reciprocal)
register_unary("Sigmoid", _sigmoid)


def truncated_division(a: Value, b: Value) -> Value:
    """Returns the quotient of integers, rounded toward zero (numpy rounds down)."""
    m = xp(a, b)
    if concrete(a, b):
        quotient = np.floor_divide(a, b)
        if np.asarray(quotient).dtype == object:  # sizes are never negative
            return quotient
        uneven = np.not_equal(np.multiply(quotient, b), a) & (np.less(a, 0) != np.less(b, 0))
        return np.asarray(quotient + uneven.astype(quotient.dtype))
    a, b = m.broadcast_arrays(a, b)
    dtype = m.result_type(a, b)
    return jax.lax.div(a.astype(dtype), b.astype(dtype))


def _divide(a: Value, b: Value) -> Value:
    return truncated_division(a, b) if is_integer(a) and is_integer(b) else xp(a, b).divide(a, b)


register_binary("Add", lambda a, b: xp(a, b).add(a, b))
register_binary("Sub", lambda a, b: xp(a, b).subtract(a, b))
register_binary("Mul", lambda a, b: xp(a, b).multiply(a, b))
register_binary("Div", _divide)


def _power(base: Value, exponent: Value) -> Value:
    m = xp(base, exponent)
    if concrete(exponent) and np.size(exponent) == 1 and jnp.issubdtype(base.dtype, jnp.floating):
        # with a known exponent the derivative at and below zero is finite: x**2, not exp(2 log x)
        power = float(np.ravel(exponent)[0])
        base = base.reshape((1,) * (np.ndim(exponent) - np.ndim(base)) + np.shape(base))
        if power == 0.5:
            return m.sqrt(base)
        return astype(m.power(base, int(power) if power.is_integer() and abs(power) < 64 else power), base.dtype)
    if is_integer(base) and jnp.issubdtype(exponent.dtype, jnp.floating):
        return astype(m.power(astype(base, exponent.dtype), exponent), base.dtype)
    return astype(m.power(base, exponent), base.dtype)


register_binary("Pow", _power)


@op("Mod", since=10)
def mod(a: Value, b: Value, /, *, fmod: int = 0) -> Value:
    """Returns the remainder with the sign of the divisor or, with `fmod`, of the dividend."""
    return xp(a, b).fmod(a, b) if fmod else xp(a, b).mod(a, b)


@in_float32
def _sum(*xs: Value) -> Value:
    return functools.reduce(lambda a, b: xp(a, b).add(a, b), xs)


@in_float32
def _mean(*xs: Value) -> Value:
    total = _sum(*xs)
    return total / xp(total).asarray(len(xs), total.dtype)


_VARIADIC: dict[str, Callable[..., Value]] = {
    "Sum": _sum,
    "Max": lambda *xs: functools.reduce(lambda a, b: xp(a, b).maximum(a, b), xs),
    "Min": lambda *xs: functools.reduce(lambda a, b: xp(a, b).minimum(a, b), xs),
    "Mean": _mean,
}


def _register_variadic(name: str, function: Callable[..., Value]) -> None:
    def until_5(*xs: Value, consumed_inputs: Sequence[int] | None = None) -> Value:
        return function(*xs)

    def since_6(*xs: Value) -> Value:
        return function(*xs)

    op(name)(until_5)
    op(name, since=6)(since_6)


for _name, _function in _VARIADIC.items():
    _register_variadic(_name, _function)


def _clip(x: Value, low: Value, high: Value) -> Value:
    if concrete(x, low, high):
        out = x if low is None else np.maximum(x, low)
        return out if high is None else np.minimum(out, high)
    least, most = (-jnp.inf, jnp.inf) if jnp.issubdtype(x.dtype, jnp.floating) else finite_range(x.dtype)
    # a clamp is one instruction; its derivative is 1 strictly inside and 0 at both ends, like Relu's
    return jax.lax.clamp(_bound(least if low is None else low, x), x, _bound(most if high is None else high, x))


def _bound(value: Value, x: Value) -> Value:
    """Returns a bound for `lax.clamp`: a scalar if it is known, else of the shape of `x`, since `vmap` may map it."""
    bound = jnp.asarray(value, x.dtype).reshape(())
    return bound if concrete(value) else jnp.broadcast_to(bound, x.shape)


_LOWEST, _HIGHEST = (float(v) for v in (np.finfo(np.float32).min, np.finfo(np.float32).max))


@op("Clip")
def clip_1(
    x: Value,
    /,
    *,
    min: float | None = None,
    max: float | None = None,
    consumed_inputs: Sequence[int] | None = None,
) -> Value:
    """Clips x to bounds that are attributes, absent by default."""
    return clip_6(x, min=_LOWEST if min is None else min, max=_HIGHEST if max is None else max)


@op("Clip", since=6)
def clip_6(x: Value, /, *, min: float = _LOWEST, max: float = _HIGHEST) -> Value:
    """Clips x to bounds that are attributes; the defaults do not clip."""
    low, high = (None if v in (_LOWEST, _HIGHEST) else np.asarray(v, x.dtype) for v in (min, max))
    return _clip(x, low, high)


@op("Clip", since=11)
def clip(x: Value, low: Value = None, high: Value = None, /) -> Value:
    """Clips x to bounds that are scalar inputs; if the lower is above the upper, the result is the upper."""
    return _clip(x, low, high)


@op("MatMul")
def matmul(a: Value, b: Value, /) -> Value:
    """Returns the matrix product, with numpy's rules for stacks and vectors."""
    product = accumulated_product(a, b)
    return astype(product, a.dtype) if is_narrow(a) and is_narrow(b) else product


def accumulated_product(a: Value, b: Value) -> Value:
    """Returns the matrix product in the type in which it is summed: float32 for two matrices of 16-bit floats."""
    if concrete(a, b):
        return np.matmul(widened(a), widened(b))
    wide = np.float32 if is_narrow(a) and is_narrow(b) else None
    return jnp.matmul(a, b, precision=HIGHEST, preferred_element_type=wide)


def _gemm(a: Value, b: Value, c: Value | None, alpha: float, beta: float, trans_a: int, trans_b: int) -> Value:
    y = accumulated_product(a.T if trans_a else a, b.T if trans_b else b)
    if alpha != 1:
        y = astype(y * alpha, y.dtype)
    if c is not None and beta != 0:
        y = y + (c if beta == 1 else astype(widened(c) * beta, y.dtype))
    return astype(y, a.dtype)


@op("Gemm")
def gemm_1(
    a: Value,
    b: Value,
    c: Value,
    /,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    broadcast: int = 0,
    transA: int = 0,
    transB: int = 0,
) -> Value:
    """Returns alpha * A B + beta * C, where `broadcast` allows C to be smaller."""
    return _gemm(a, b, c, alpha, beta, transA, transB)


@op("Gemm", since=7)
def gemm(
    a: Value,
    b: Value,
    c: Value | None = None,
    /,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Value:
    """Returns alpha * A B + beta * C."""
    return _gemm(a, b, c, alpha, beta, transA, transB)


@op("Einsum", since=12)
def einsum(*xs: Value, equation: str) -> Value:
    """Returns the Einstein summation of the inputs."""
    subscripts = equation.replace(" ", "")
    if concrete(*xs):
        return astype(np.einsum(subscripts, *map(widened, xs)), xs[0].dtype)
    wide = np.float32 if all(map(is_narrow, xs)) else None
    return astype(jnp.einsum(subscripts, *xs, precision=HIGHEST, preferred_element_type=wide), xs[0].dtype)


@op("CumSum", since=11)
@in_float32
def cumsum(x: Value, axis: Index, /, *, exclusive: int = 0, reverse: int = 0) -> Value:
    """Returns the running sum; `exclusive` leaves out the element itself, `reverse` sums from the end."""
    return _running(x, axis, exclusive, reverse, "cumsum", 0)


@op("CumProd", since=26)
@in_float32
def cumprod(x: Value, axis: Index, /, *, exclusive: int = 0, reverse: int = 0) -> Value:
    """Returns the running product; `exclusive` leaves out the element itself, `reverse` multiplies from the end."""
    return _running(x, axis, exclusive, reverse, "cumprod", 1)


def _running(x: Value, axis: Value, exclusive: int, reverse: int, name: str, start: int) -> Value:
    m = xp(x)

    def accumulate(axis: int) -> Value:
        values = m.flip(x, axis) if reverse else x
        if exclusive:
            first = m.full_like(values[(slice(None),) * axis + (slice(0, 1),)], start)
            values = m.concatenate([first, values[(slice(None),) * axis + (slice(None, -1),)]], axis)
        out = getattr(m, name)(values, axis=axis, dtype=x.dtype)
        return m.flip(out, axis) if reverse else out

    return along_axis(accumulate, axis.reshape(-1)[0], x.ndim)


@op("TopK")
def topk_1(x: Value, /, *, axis: int = -1, k: int) -> tuple[Value, Value]:
    """Returns the k largest entries, where k is an attribute."""
    return topk(x, np.asarray([k]), axis=axis)


@op("TopK", since=10)
def topk(x: Value, k: Static, /, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Value, Value]:
    """Returns the k largest (or smallest) entries along an axis, always in order, equal ones by index."""
    axis, count = axis_index(axis, x.ndim), int(np.ravel(k)[0])
    rows = jnp.moveaxis(jnp.asarray(x), axis, -1)
    if count > rows.shape[-1]:
        raise InvalidInputError("TopK needs k entries", got=f"k = {count} of {rows.shape[-1]}")
    if largest == 1:
        values, indices = jax.lax.top_k(rows, count)
    else:  # inverting the bits reverses the order of integers of either sign without overflow
        values, indices = jax.lax.top_k(~rows if is_integer(x) else -rows, count)
        values = ~values if is_integer(x) else -values
    return jnp.moveaxis(values, -1, axis), astype(jnp.moveaxis(indices, -1, axis), np.int64)


@op("BitShift", since=11)
def bit_shift(a: Value, b: Value, /, *, direction: str) -> Value:
    """Shifts `a` by `b` bits to LEFT or RIGHT; bits shifted out are lost."""
    m = xp(a, b)
    if direction not in ("LEFT", "RIGHT"):
        raise InvalidInputError("BitShift's direction is LEFT or RIGHT", got=direction)
    return m.left_shift(a, b) if direction == "LEFT" else m.right_shift(a, b)


@op("Det", since=11)
@in_float32
def det(x: Value, /) -> Value:
    """Returns the determinants of the matrices in the last two axes."""
    return jnp.linalg.det(x)
