"""Elementwise operators between convolutions, computed channels last.

Convolution and pooling kernels take and leave tensors channels last, the graph says channels first, and XLA puts what
lies between two kernels into either order: where it chose the graph's, a network with squeeze-and-excitation blocks
spent 40 % of its time walking through memory across the grain. So an elementwise operator on what comes from such a
kernel moves its inputs' channels to the end and its result's back: the moves of neighbours cancel in compilation.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np

from modeldiff_jax.models.graph.ir import Node
from modeldiff_jax.models.graph.registry import Value

# fmt: off
_KERNELS = frozenset({
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool",
    "LpPool", "MaxPool",
})
_ELEMENTWISE = frozenset({
    "Abs", "Add", "Cast", "Ceil", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
    "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "Reciprocal",
    "Relu", "Round", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu",
    "Where",
})
# fmt: on


def is_kernel(node: Node) -> bool:
    """Whether the operator leaves its first output channels last."""
    return not node.domain and node.op in _KERNELS


def is_elementwise(node: Node) -> bool:
    """Whether the operator treats all elements alike; the first versions of some name an axis, and do not."""
    return not node.domain and node.op in _ELEMENTWISE and "axis" not in node.attributes


def computed_last(function: Callable[..., Value]) -> Callable[..., Value]:
    """An elementwise function of channels-first values, computed channels last."""

    def moved(*arguments: Value, **attributes: Any) -> Value:
        rank = max(np.ndim(value) for value in arguments if value is not None)
        if rank < 3:
            return function(*arguments, **attributes)
        result = function(*(_last(value, rank) for value in arguments), **attributes)
        return _library(result).moveaxis(result, -1, 1)

    return moved


def _last(value: Value, rank: int) -> Value:
    """With the channels at the end; what has fewer axes gets those that broadcasting gives it."""
    if value is None or (np.size(value) == 1 and np.ndim(value) < rank):
        return value
    return _library(value).moveaxis(value.reshape((1,) * (rank - np.ndim(value)) + np.shape(value)), 1, -1)


def _library(value: Value) -> ModuleType:
    return np if isinstance(value, np.ndarray) else jnp
