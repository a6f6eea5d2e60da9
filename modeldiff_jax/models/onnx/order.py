"""Sorts a graph's nodes.

The standard requires each node after those whose outputs it reads; onnxruntime's quantiser does not ensure that, and
onnxruntime sorts the nodes, so there are files in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

from onnx import AttributeProto, GraphProto, NodeProto

from modeldiff_jax.errors import InvalidModelError
from modeldiff_jax.models.onnx.fields import label, text


def in_order(nodes: Sequence[NodeProto], where: str) -> Sequence[NodeProto]:
    """Returns the nodes, each after those whose outputs it or a graph nested in it reads; unchanged if in order.

    Raises:
      InvalidModelError: nodes form a cycle.
    """
    producers: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for name in node.output:
            producers.setdefault(text(name), i)  # the reader refuses a name that is defined twice
    needs = {i: {producers[name] for name in _reads(node) if name in producers} for i, node in enumerate(nodes)}
    if all(producer < i for i, needed in needs.items() for producer in needed):
        return nodes
    try:
        return [nodes[i] for i in TopologicalSorter(needs).static_order()]
    except CycleError as error:
        labels = [label(nodes[i]) for i in error.args[1]]
        shown = " <- ".join(f"`{name}`" for name in labels[:5]) + (" <- ..." if len(labels) > 5 else "")
        raise InvalidModelError(
            "The nodes of a graph form no cycle", got=shown, where=where, fix="export it again"
        ) from error


def _reads(node: NodeProto) -> set[str]:
    """Returns the names that a node reads from its graph: its inputs and the free names of its nested graphs."""
    names = {text(name) for name in node.input if name}
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            names |= _free(attribute.g)
    return names


def _free(graph: GraphProto) -> set[str]:
    """Returns the names that a nested graph reads but does not define."""
    read = {text(value.name) for value in graph.output}.union(*map(_reads, graph.node))
    given = {text(value.name) for value in (*graph.input, *graph.initializer)}
    return read - given - {text(name) for node in graph.node for name in node.output}
