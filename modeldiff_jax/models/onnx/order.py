"""The order of a graph's nodes. The standard wants each after those it reads; onnxruntime's own quantiser does not keep
to it, and onnxruntime sorts, so files in any order are about.
"""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

from onnx import AttributeProto, GraphProto, NodeProto

from modeldiff_jax.errors import InvalidModelError
from modeldiff_jax.models.onnx.fields import label, text


def in_order(nodes: Sequence[NodeProto], where: str) -> Sequence[NodeProto]:
    """Each node after those whose outputs it or a graph nested in it reads; as given where that holds already.

    Raises:
      InvalidModelError: nodes that wait for one another.
    """
    makers: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for name in node.output:
            makers.setdefault(text(name), i)  # a name defined twice is refused where it is defined
    needs = {i: {makers[name] for name in _reads(node) if name in makers} for i, node in enumerate(nodes)}
    if all(maker < i for i, found in needs.items() for maker in found):
        return nodes
    try:
        return [nodes[i] for i in TopologicalSorter(needs).static_order()]
    except CycleError as error:
        labels = [label(nodes[i]) for i in error.args[1]]
        shown = " <- ".join(f"`{name}`" for name in labels[:5]) + (" <- ..." if len(labels) > 5 else "")
        raise InvalidModelError(
            "A node does not wait for itself", got=shown, where=where, fix="export it again"
        ) from error


def _reads(node: NodeProto) -> set[str]:
    """Names a node takes from the graph it stands in."""
    found = {text(name) for name in node.input if name}
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            found |= _free(attribute.g)
    return found


def _free(graph: GraphProto) -> set[str]:
    """Names a nested graph reads but does not define."""
    read = {text(value.name) for value in graph.output}.union(*map(_reads, graph.node))
    own = {text(value.name) for value in (*graph.input, *graph.initializer)}
    return read - own - {text(name) for node in graph.node for name in node.output}
