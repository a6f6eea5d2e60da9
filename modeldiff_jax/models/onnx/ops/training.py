"""Optimisers of `ai.onnx.preview.training`, which update tensors and states from gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.graph.values import Value, astype, xp
from modeldiff_jax.models.onnx.registration import op

_DOMAIN = "ai.onnx.preview.training"
_EPSILON = float(np.float32(1e-6))


def _each(values: tuple[Value, ...], kinds: int, rule: Callable[..., tuple[Value, ...]]) -> tuple[Value, ...]:
    """Applies `rule` to each tensor with its gradient and states; inputs and outputs are grouped by kind."""
    count = len(values) // kinds
    if not count or len(values) % kinds:
        raise InvalidInputError(f"There are {kinds} inputs for each tensor", got=f"{len(values)} inputs")
    groups = zip(*(values[i * count : (i + 1) * count] for i in range(kinds)), strict=True)
    rows = [tuple(astype(new, group[0].dtype) for new in rule(*group)) for group in groups]
    return tuple(value for column in zip(*rows, strict=True) for value in column)


@op("Adagrad", domain=_DOMAIN)
def adagrad(
    rate: Value,
    count: Value,
    /,
    *values: Value,
    decay_factor: float = 0.0,
    epsilon: float = _EPSILON,
    norm_coefficient: float = 0.0,
) -> tuple[Value, ...]:
    """Updates tensors by gradients over the root of the sum of all squared gradients (Duchi et al. 2011)."""

    def rule(x: Value, gradient: Value, squares: Value) -> tuple[Value, ...]:
        g = norm_coefficient * x + gradient
        new = squares + g * g
        return x - rate / (1 + count * decay_factor) * g / (xp(new).sqrt(new) + epsilon), new

    return _each(values, 3, rule)


@op("Adam", domain=_DOMAIN)
def adam(
    rate: Value,
    count: Value,
    /,
    *values: Value,
    alpha: float = float(np.float32(0.9)),
    beta: float = float(np.float32(0.999)),
    epsilon: float = _EPSILON,
    norm_coefficient: float = 0.0,
    norm_coefficient_post: float = 0.0,
) -> tuple[Value, ...]:
    """Updates tensors by the running mean of the gradient over the root of that of its square (Kingma and Ba 2015)."""
    m = xp(rate, count)
    safe = m.maximum(count, 1)
    rate = m.where(count > 0, rate * m.sqrt(1 - beta**safe) / (1 - alpha**safe), rate)

    def rule(x: Value, gradient: Value, mean: Value, square: Value) -> tuple[Value, ...]:
        g = norm_coefficient * x + gradient
        mean, square = alpha * mean + (1 - alpha) * g, beta * square + (1 - beta) * g * g
        new = x - rate * mean / (xp(square).sqrt(square) + epsilon)
        return (1 - norm_coefficient_post) * new, mean, square

    return _each(values, 4, rule)


@op("Momentum", domain=_DOMAIN)
def momentum(
    rate: Value, count: Value, /, *values: Value, alpha: float, beta: float, mode: str, norm_coefficient: float
) -> tuple[Value, ...]:
    """Updates tensors by a running sum of the gradient, `standard` or `nesterov`."""
    if mode not in ("standard", "nesterov"):
        raise InvalidInputError("Momentum's mode is standard or nesterov", got=mode)
    share: Any = xp(count).where(count > 0, beta, 1)

    def rule(x: Value, gradient: Value, velocity: Value) -> tuple[Value, ...]:
        g = norm_coefficient * x + gradient
        velocity = alpha * velocity + share * g
        return x - rate * (velocity if mode == "standard" else g + alpha * velocity), velocity

    return _each(values, 3, rule)
