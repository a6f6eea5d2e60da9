"""Computes elementwise operators between convolutions with the channels last.

Convolution and pooling kernels compute channels last whatever the graph says, and XLA chooses either layout for the
operators between two kernels. Where it chose channels first, as in the graph, a network with squeeze-and-excitation
blocks spent 40 % of its time on strided reads. So an elementwise operator on the output of such a kernel moves the
channels of its inputs to the end and those of its result back: the moves of neighbours cancel in compilation.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np

from modeldiff_jax.models.graph.ir import Node
from modeldiff_jax.models.graph.traits import traits_of
from modeldiff_jax.models.graph.values import Value


class ChannelAxes(dict[str, int]):
    """Axis of channels in the graph, by name, of values from kernels that compute channels last."""

    def of_inputs(self, node: Node) -> int | None:
        """Returns the axis of channels of an elementwise node that reads such values, if it is one for all of them."""
        axes = {self[name] for name in node.inputs if name in self}
        return axes.pop() if len(axes) == 1 and traits_of(node).elementwise(node.attributes) else None

    def propagate(self, node: Node, axis: int | None) -> None:
        """Records the axis of channels of the node's first output, if it was computed with channels last.

        Args:
          node: a node that was evaluated.
          axis: as `of_inputs` returned it before.
        """
        channel_axis = traits_of(node).channel_axis if axis is None else axis
        if channel_axis is not None:
            self[node.outputs[0]] = channel_axis


def in_channels_last(function: Callable[..., Value], axis: int) -> Callable[..., Value]:
    """Returns an elementwise function that moves `axis` of its inputs to the end, and back in its result."""

    def moved(*arguments: Value, **attributes: Any) -> Value:
        rank = max(np.ndim(value) for value in arguments if value is not None)
        if rank < 3:
            return function(*arguments, **attributes)
        result = function(*(_moved_last(value, rank, axis) for value in arguments), **attributes)
        return _library(result).moveaxis(result, -1, axis)

    return moved


def _moved_last(value: Value, rank: int, axis: int) -> Value:
    """Moves an axis to the end; a value of fewer than `rank` axes first gets leading axes of size 1."""
    if value is None or (np.size(value) == 1 and np.ndim(value) < rank):
        return value
    return _library(value).moveaxis(value.reshape((1,) * (rank - np.ndim(value)) + np.shape(value)), axis, -1)


def _library(value: Value) -> ModuleType:
    return np if isinstance(value, np.ndarray) else jnp
