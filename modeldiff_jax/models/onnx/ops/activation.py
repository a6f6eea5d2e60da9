"""Activation functions and softmax. All derivatives are finite: no unselected branch of a `where` overflows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.kernels.rounding import rounded
from modeldiff_jax.models.graph.values import Value, astype, axis_index, concrete, in_float32, is_narrow, widened
from modeldiff_jax.models.onnx.ops.common import old_broadcast, register_unary
from modeldiff_jax.models.onnx.registration import op


def _float(value: float) -> float:
    """Returns a default value rounded to float32, as files store it."""
    return float(np.float32(value))


def _relu(x: Value) -> Value:
    return np.maximum(x, x.dtype.type(0)) if concrete(x) else jax.nn.relu(x)


register_unary("Relu", _relu)


def leaky_relu(x: Value, alpha: float) -> Value:
    """Returns x where it is not negative, alpha * x elsewhere."""
    return jnp.where(x >= 0, x, astype(alpha * x, x.dtype))


def elu(x: Value, alpha: float) -> Value:
    """Returns x where it is positive, alpha (exp x - 1) elsewhere."""
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.minimum(x, 0)))


def _selu(x: Value, alpha: float, gamma: float) -> Value:
    return gamma * elu(x, alpha)


def hard_sigmoid(x: Value, alpha: float, beta: float) -> Value:
    """Returns alpha x + beta, clipped to [0, 1]."""
    return jnp.clip(alpha * x + beta, 0, 1)


def _register_sloped(name: str, function: Callable[[Value, float], Value], default: float) -> None:
    def until_5(x: Value, /, *, alpha: float = default, consumed_inputs: Sequence[int] | None = None) -> Value:
        return function(x, alpha)

    def since_6(x: Value, /, *, alpha: float = default) -> Value:
        return function(x, alpha)

    op(name)(until_5)
    op(name, since=6)(since_6)


_register_sloped("LeakyRelu", leaky_relu, _float(0.01))
_register_sloped("Elu", in_float32(elu), 1.0)


@op("Selu")
@in_float32
def selu_1(
    x: Value,
    /,
    *,
    alpha: float = _float(1.6732),
    gamma: float = _float(1.0507),
    consumed_inputs: Sequence[int] | None = None,
) -> Value:
    """Returns Selu with the rounded constants of opset 1."""
    return _selu(x, alpha, gamma)


@op("Selu", since=6)
@in_float32
def selu(
    x: Value, /, *, alpha: float = _float(1.67326319217681884765625), gamma: float = _float(1.05070102214813232421875)
) -> Value:
    """Returns the scaled Elu of x (Klambauer et al. 2017)."""
    return _selu(x, alpha, gamma)


@op("HardSigmoid")
@in_float32
def hard_sigmoid_1(
    x: Value, /, *, alpha: float = _float(0.2), beta: float = 0.5, consumed_inputs: Sequence[int] | None = None
) -> Value:
    """Returns alpha x + beta, clipped to [0, 1]."""
    return hard_sigmoid(x, alpha, beta)


@op("HardSigmoid", since=6)
@in_float32
def hard_sigmoid_6(x: Value, /, *, alpha: float = _float(0.2), beta: float = 0.5) -> Value:
    """Returns alpha x + beta, clipped to [0, 1]."""
    return hard_sigmoid(x, alpha, beta)


@op("HardSwish")
@in_float32
def hard_swish(x: Value, /) -> Value:
    """Returns x times its hard sigmoid of slope 1/6."""
    return x * hard_sigmoid(x, 1 / 6, 0.5)


@op("Swish")
@in_float32
def swish(x: Value, /, *, alpha: float = 1.0) -> Value:
    """Returns x sigmoid(alpha x)."""
    return x * jax.nn.sigmoid(alpha * x)


@op("SwiGLU")
@in_float32
def swiglu(a: Value, b: Value, /, *, alpha: float = 1.0) -> Value:
    """Returns swish(a) b (Shazeer 2020)."""
    return swish(a, alpha=alpha) * b


@op("Celu")
@in_float32
def celu(x: Value, /, *, alpha: float = 1.0) -> Value:
    """Returns x where it is positive, alpha (exp(x / alpha) - 1) elsewhere."""
    return jax.nn.celu(x, alpha)


@op("Gelu")
@in_float32
def gelu(x: Value, /, *, approximate: str = "none") -> Value:
    """Returns x times the normal distribution function of x, or its tanh approximation."""
    return jax.nn.gelu(x, approximate=approximate == "tanh")


@op("Mish")
@in_float32
def mish(x: Value, /) -> Value:
    """Returns x tanh(softplus x)."""
    return x * jnp.tanh(jax.nn.softplus(x))


@op("Softplus")
@in_float32
def softplus(x: Value, /) -> Value:
    """Returns log(1 + exp x)."""
    return jax.nn.softplus(x)


@op("Softsign")
@in_float32
def softsign(x: Value, /) -> Value:
    """Returns x / (1 + |x|)."""
    return x / (1 + jnp.abs(x))


@op("ThresholdedRelu")
def thresholded_relu(x: Value, /, *, alpha: float = 1.0) -> Value:
    """Returns x where it is above alpha, 0 elsewhere."""
    return jnp.where(x > alpha, x, jnp.zeros_like(x))


@op("Shrink")
@in_float32
def shrink(x: Value, /, *, bias: float = 0.0, lambd: float = 0.5) -> Value:
    """Returns x moved towards 0 by `bias`, and 0 where |x| is at most `lambd`."""
    return astype(jnp.where(x < -lambd, x + bias, jnp.where(x > lambd, x - bias, 0)), x.dtype)


def _prelu(x: Value, slope: Value) -> Value:
    return jnp.where(x < 0, slope * x, x)


@op("PRelu")
def prelu_1(x: Value, slope: Value, /, *, consumed_inputs: Sequence[int] | None = None) -> Value:
    """Returns x where it is not negative, slope * x elsewhere; a vector holds a slope for each channel."""
    channels = slope.ndim == 1 and slope.size > 1 and x.ndim > 1
    return _prelu(x, old_broadcast(slope, x.ndim, 1, 1) if channels else slope)


@op("PRelu", since=7)
def prelu(x: Value, slope: Value, /) -> Value:
    """Returns x where it is not negative, slope * x elsewhere."""
    return _prelu(x, slope)


def _hardmax(x: Value, axis: Sequence[int]) -> Value:
    outer, inner = x.shape[: axis[0]], x.shape[axis[-1] + 1 :]
    flat = jnp.reshape(x, (*outer, *inner, -1)) if len(axis) > 1 else jnp.moveaxis(x, axis[0], -1)
    one_hot = jax.nn.one_hot(jnp.argmax(flat, -1), flat.shape[-1], dtype=x.dtype)
    return jnp.reshape(one_hot, x.shape) if len(axis) > 1 else jnp.moveaxis(one_hot, -1, axis[0])


def _register_softmax(name: str, function: Callable[[Value, tuple[int, ...]], Value]) -> None:
    def until_12(x: Value, /, *, axis: int = 1) -> Value:
        # before opset 13 the tensor is read as a matrix: all axes from `axis` on are one
        return function(x, tuple(range(axis_index(axis, x.ndim), x.ndim)))

    def since_13(x: Value, /, *, axis: int = -1) -> Value:
        return function(x, (axis_index(axis, x.ndim),))

    op(name)(until_12)
    op(name, since=13)(since_13)


# The argument of a softmax is rounded first. If it is a product, as an average is, XLA would fuse its multiplication
# with the subtraction of the maximum: for logits near 1e10 that gives 512 instead of 0, and an infinite exponential.


def softmax(x: Value, axis: int | tuple[int, ...] = -1) -> Value:
    """Returns exponentials over their sum, both rounded to the type of `x` as in the specification's function body.

    Only a sum beyond the type's range stays in float32, such as that of 65,520 equal entries in float16.
    """
    x = rounded(jnp.asarray(x))
    if not is_narrow(x):
        return jax.nn.softmax(x, axis)
    powers = widened(jnp.exp(x - jax.lax.stop_gradient(x.max(axis, keepdims=True))))
    total = powers.sum(axis, keepdims=True)
    rounded_total = widened(astype(total, x.dtype))
    return astype(powers / jnp.where(jnp.isinf(rounded_total), total, rounded_total), x.dtype)


@in_float32
def _log_softmax(x: Value, axis: tuple[int, ...]) -> Value:
    return jax.nn.log_softmax(rounded(jnp.asarray(x)), axis)


_SOFTMAX: dict[str, Callable[[Value, tuple[int, ...]], Value]] = {
    "Softmax": softmax,
    "LogSoftmax": _log_softmax,
    "Hardmax": _hardmax,
}
for _name, _function in _SOFTMAX.items():
    _register_softmax(_name, _function)
