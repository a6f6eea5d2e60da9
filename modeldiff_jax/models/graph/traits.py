"""What passes may rely on of an operator, beyond what its function says.

No pass knows an operator by name. A dialect (ONNX, TFLite) declares the traits of its operators where it registers
them, and the passes ask for traits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import numpy as np

from modeldiff_jax.models.graph.ir import Node

Attributes: TypeAlias = Mapping[str, Any]
Order: TypeAlias = tuple[int, ...]
"""Axes of an array in another order, as `transpose` takes them."""


def _never(attributes: Attributes) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Traits:
    """Traits of an operator; the defaults promise nothing.

    Attributes:
      elementwise: attributes -> whether each element of the result is computed from the inputs' elements at its place,
        by numpy's broadcasting.
      channel_axis: the axis of channels in the first output, where the operator's kernel computes it channels last.
      reads_shapes: the outputs depend on the inputs' shapes alone, never on their values.
      random: the outputs differ from call to call, so nothing of it may be computed once.
      moves_elements: each element of the results is an element of the inputs, whatever type they hold.
      reads_each_string: each element of the result is computed from one string of the only array input.
      passes_indices: the first output holds the values of the first input, in whatever shape or integer type.
      index_bound: (attributes, constant value of each input or None) -> how many values an index input may take.
      index_position: which input that is.
      weight_order: (position, rank, attributes) -> the order of axes in which the kernel reads that input, or None for
        the order in which the graph stores it.
      deciding: positions of inputs that choose a branch or a number of trips.
      branches: whether nested graphs are branches, each of which runs at most once a call; all others count as loops.
    """

    elementwise: Callable[[Attributes], bool] = _never
    channel_axis: int | None = None
    reads_shapes: bool = False
    random: bool = False
    moves_elements: bool = False
    reads_each_string: bool = False
    passes_indices: bool = False
    index_bound: Callable[[Attributes, Sequence[jax.Array | np.ndarray | None]], int | None] | None = None
    index_position: int = 0
    weight_order: Callable[[int, int, Attributes], Order | None] | None = None
    deciding: tuple[int, ...] = ()
    branches: bool = False


_NONE = Traits()
_DECLARED: dict[tuple[str, str], Traits] = {}


def declare(domain: str, *names: str, **traits: Any) -> None:
    """Declares traits of operators; further declarations of the same operator add to earlier ones.

    Args:
      domain: of the operators.
      *names: of the operators.
      **traits: fields of `Traits`.
    """
    for name in names:
        _DECLARED[domain, name] = replace(_DECLARED.get((domain, name), _NONE), **traits)


def traits_of(node: Node) -> Traits:
    """Returns the traits of a node's operator."""
    return _DECLARED.get((node.domain, node.op), _NONE)


def declared() -> Mapping[tuple[str, str], Traits]:
    """Returns all declared traits: (domain, name) -> `Traits`."""
    return _DECLARED
