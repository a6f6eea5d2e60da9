"""The number of values an integer input may take, read off the tables it indexes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modeldiff_jax.models.graph.ir import Graph
from modeldiff_jax.models.graph.traits import traits_of
from modeldiff_jax.models.model import Model


def vocabulary(model: Model, name: str) -> int | None:
    """Returns the number of values an integer input may take.

    Args:
      model: any model.
      name: of the input.
    Returns:
      The fewest entries among the tables and one-hot encodings the input indexes; None when it reaches none, or for a
      model without a graph.
    """
    if model.conversion is None:
        return None
    graph = model.conversion.folded
    constants = {**model.params, **graph.constants}
    return min(_index_bounds(graph, constants, {name}), default=None)


def _index_bounds(graph: Graph, constants: Mapping[str, Any], reached: set[str]) -> Iterator[int]:
    """Yields the bound of each index input that one of the `reached` values comes to; `reached` grows on the way."""
    for node in graph.nodes:
        for subgraph in node.subgraphs.values():
            yield from _index_bounds(subgraph, constants, reached)
        traits = traits_of(node)
        if traits.passes_indices and node.inputs[0] in reached:
            reached.update(node.outputs)
        elif traits.index_bound and node.inputs[traits.index_position] in reached:
            bound = traits.index_bound(node.attributes, [constants.get(name) for name in node.inputs])
            if bound is not None:
                yield bound
