"""A graph in two parts: what depends on some of the inputs alone, and the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from modeldiff_jax.models.graph.ir import Graph, Node, captured, free_names
from modeldiff_jax.models.graph.traits import traits_of
from modeldiff_jax.types import TensorSpec


@dataclass(frozen=True, slots=True)
class Split:
    """Two graphs that make one.

    Attributes:
      first: of the chosen inputs and constants; its outputs are the values that `second` reads, then those of the
        whole graph's outputs that it computes.
      second: of the values `passed` on, then of the other inputs; its outputs are the whole graph's other ones.
      n_passed: number of the values that `second` reads.
      done: names of the outputs that `first` computes.
    """

    first: Graph
    second: Graph
    n_passed: int
    done: tuple[str, ...]


def split(graph: Graph, names: frozenset[str]) -> Split:
    """Divides a graph by what its inputs `names` and constants decide alone."""
    decided = set(names) | set(graph.constants)
    before: list[Node] = []
    after: list[Node] = []
    for node in graph.nodes:
        alone = captured(node) <= decided and not traits_of(node).random
        (before if alone else after).append(node)
        decided.update(node.outputs if alone else ())
    made = names | {name for node in before for name in node.outputs if name}
    done = tuple(spec for spec in graph.outputs if spec.name in made)
    open_ = replace(graph, nodes=tuple(after), outputs=tuple(s for s in graph.outputs if s.name not in made))
    passed = tuple(sorted(free_names(replace(open_, constants={}, inputs=())) & made))
    between = tuple(TensorSpec(name, (), np.dtype(object)) for name in passed)
    return Split(
        first=replace(
            graph,
            nodes=tuple(before),
            inputs=tuple(spec for spec in graph.inputs if spec.name in names),
            outputs=(*between, *done),
        ),
        second=replace(open_, inputs=(*between, *(spec for spec in graph.inputs if spec.name not in names))),
        n_passed=len(passed),
        done=tuple(spec.name for spec in done),
    )
