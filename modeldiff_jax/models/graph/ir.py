"""The intermediate representation that every file format is read into: frozen records, no protobuf, no flatbuffers.

Names are unique over a graph and all graphs nested in it (readers ensure that), so one environment serves them all.
Constants belong to the outermost graph only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from modeldiff_jax.types import TensorSpec


@dataclass(frozen=True, slots=True)
class Node:
    """A call of an operator.

    Attributes:
      op: name of the operator.
      domain: dialect of the operator, such as `ai.onnx`; never empty.
      version: version of the domain (ONNX's opset) or of the operator that the node was written for.
      name: name of the node, for messages.
      inputs: names of values; an empty one is an omitted optional input.
      outputs: names of values; an empty one is not used.
      attributes: Python ints, floats, strings, tuples of these, numpy arrays and nested `Graph`s, by name.
    """

    op: str
    domain: str
    version: int
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def subgraphs(self) -> Mapping[str, Graph]:
        """Nested graphs among the attributes, by attribute."""
        return {name: value for name, value in self.attributes.items() if isinstance(value, Graph)}

    def __str__(self) -> str:
        return f"{self.domain}.{self.op} node `{self.name or '/'.join(self.outputs)}`"


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order.

    Attributes:
      name: for messages.
      nodes: each after those whose outputs it reads.
      inputs: specs in declared order.
      outputs: specs in declared order.
      versions: domain -> the version of its operators that the file imports; nodes of functions may have another.
      constants: values by name; empty in nested graphs.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    versions: Mapping[str, int]
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)

    def walk(self) -> Iterator[Node]:
        """Yields every node of this graph and of all graphs nested in it."""
        for node in self.nodes:
            yield node
            for subgraph in node.subgraphs.values():
                yield from subgraph.walk()

    @cached_property
    def last_reads(self) -> tuple[tuple[str, ...], ...]:
        """Values computed by this graph's nodes that nothing reads after a node: names, node by node.

        A nested graph reads what it captures where its node stands. Outputs of the graph are in none of them.
        """
        alive = {spec.name for spec in self.outputs}
        computed = {name for node in self.nodes for name in node.outputs if name}
        found: list[tuple[str, ...]] = []
        for node in reversed(self.nodes):
            reads = captured(node)
            found.append(tuple(((reads & computed) | set(filter(None, node.outputs))) - alive))
            alive |= reads
        return tuple(reversed(found))


def captured(node: Node) -> frozenset[str]:
    """Returns the names that a node reads: its inputs and the free names of its nested graphs."""
    names = {name for name in node.inputs if name}
    for subgraph in node.subgraphs.values():
        names |= free_names(subgraph)
    return frozenset(names)


def free_names(graph: Graph) -> frozenset[str]:
    """Returns the names that a graph reads but does not define."""
    defined = {spec.name for spec in graph.inputs} | set(graph.constants)
    free: set[str] = set()
    for node in graph.nodes:
        free |= captured(node) - defined
        defined.update(node.outputs)
    return frozenset(free | ({spec.name for spec in graph.outputs} - defined))
