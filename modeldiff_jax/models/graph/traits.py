"""Traits of operators: properties that passes rely on, beyond the contract of the operator's function.

No pass knows an operator by name. A dialect (ONNX, TFLite) declares the traits of its operators where it registers
them, and passes read the traits.
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
      elementwise: attributes -> whether each element of the result is computed from the inputs' elements at the same
        index, by numpy's broadcasting.
      channel_axis: axis of channels in the first output, if the operator's kernel computes it channels last.
      reads_shapes: the outputs depend on the inputs' shapes alone, never on their values.
      random: the outputs differ between calls, so the operator must not be folded.
      moves_elements: each element of the results is an element of the inputs, whatever its type.
      reads_each_string: each element of the result is computed from one string of the only array input.
      passes_indices: the first output has the values of the first input, in any shape or integer type.
      index_bound: (attributes, constant value of each input or None) -> number of values that an index input may take.
      index_position: position of that input.
      weight_order: (position, rank, attributes) -> the order of axes in which the kernel reads that input, or None for
        the order in which the graph stores it.
      deciding: positions of inputs that choose a branch or a number of iterations.
      branches: whether nested graphs are branches, which run at most once a call; otherwise they are loop bodies.
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
