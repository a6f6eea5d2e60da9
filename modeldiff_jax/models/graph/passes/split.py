"""Splits a graph in two: the nodes that depend on some of the inputs alone, and the others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from modeldiff_jax.models.graph.ir import Graph, Node, captured, free_names
from modeldiff_jax.models.graph.traits import traits_of
from modeldiff_jax.types import TensorSpec


@dataclass(frozen=True, slots=True)
class Split:
    """The two parts of a graph, to be run one after the other.

    Attributes:
      first: reads the chosen inputs and constants; its outputs are the values that `second` reads, then those outputs
        of the whole graph that it computes.
      second: reads the values passed on by `first`, then the other inputs; its outputs are the other outputs.
      n_passed: number of values passed on.
      done: names of the outputs that `first` computes.
    """

    first: Graph
    second: Graph
    n_passed: int
    done: tuple[str, ...]


def split(graph: Graph, names: frozenset[str]) -> Split:
    """Splits a graph into the nodes that depend on the inputs `names` and constants alone, and the others."""
    known = set(names) | set(graph.constants)
    before: list[Node] = []
    after: list[Node] = []
    for node in graph.nodes:
        in_first = captured(node) <= known and not traits_of(node).random
        (before if in_first else after).append(node)
        known.update(node.outputs if in_first else ())
    computed = names | {name for node in before for name in node.outputs if name}
    done = tuple(spec for spec in graph.outputs if spec.name in computed)
    second = replace(graph, nodes=tuple(after), outputs=tuple(s for s in graph.outputs if s.name not in computed))
    passed = tuple(sorted(free_names(replace(second, constants={}, inputs=())) & computed))
    between = tuple(TensorSpec(name, (), np.dtype(object)) for name in passed)
    return Split(
        first=replace(
            graph,
            nodes=tuple(before),
            inputs=tuple(spec for spec in graph.inputs if spec.name in names),
            outputs=(*between, *done),
        ),
        second=replace(second, inputs=(*between, *(spec for spec in graph.inputs if spec.name not in names))),
        n_passed=len(passed),
        done=tuple(spec.name for spec in done),
    )
