"""Elementwise operators between convolutions, computed channels last.

Convolution and pooling kernels compute channels last whatever the graph says, and XLA lays out what lies between two
kernels in either order: where it chose a channels-first graph's, a network with squeeze-and-excitation blocks spent
40 % of its time reading memory across the grain. So an elementwise operator on the output of such a kernel moves its
inputs' channels to the end and its result's back: the moves of neighbours cancel in compilation.
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
    """Values that come from kernels which compute channels last: name -> the axis of channels in the graph."""

    def of_inputs(self, node: Node) -> int | None:
        """Returns the axis of channels if the node is elementwise and reads such values, all of one axis."""
        axes = {self[name] for name in node.inputs if name in self}
        return axes.pop() if len(axes) == 1 and traits_of(node).elementwise(node.attributes) else None

    def propagate(self, node: Node, axis: int | None) -> None:
        """Records the node's first output, which was computed with channels last if `axis` is not None."""
        found = traits_of(node).channel_axis if axis is None else axis
        if found is not None:
            self[node.outputs[0]] = found


def in_channels_last(function: Callable[..., Value], axis: int) -> Callable[..., Value]:
    """Returns the elementwise function, computed with `axis` moved to the end and its result's end moved back."""

    def moved(*arguments: Value, **attributes: Any) -> Value:
        rank = max(np.ndim(value) for value in arguments if value is not None)
        if rank < 3:
            return function(*arguments, **attributes)
        result = function(*(_moved_last(value, rank, axis) for value in arguments), **attributes)
        return _library(result).moveaxis(result, -1, axis)

    return moved


def _moved_last(value: Value, rank: int, axis: int) -> Value:
    """Moves the axis to the end; a value of fewer axes first gets those that broadcasting gives it."""
    if value is None or (np.size(value) == 1 and np.ndim(value) < rank):
        return value
    return _library(value).moveaxis(value.reshape((1,) * (rank - np.ndim(value)) + np.shape(value)), axis, -1)


def _library(value: Value) -> ModuleType:
    return np if isinstance(value, np.ndarray) else jnp
