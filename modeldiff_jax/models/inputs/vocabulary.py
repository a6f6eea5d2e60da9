"""Finds the values that integer and string inputs may take in the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from modeldiff_jax.models.graph.ir import Graph
from modeldiff_jax.models.graph.traits import traits_of
from modeldiff_jax.models.model import Model


def vocabulary(model: Model, name: str) -> int | None:
    """Returns the number of values an integer input may take.

    Args:
      model: any model.
      name: of the input.
    Returns:
      The size of the smallest table or one-hot encoding that the input indexes; None if it indexes none, or for a model
      without a graph.
    """
    if model.conversion is None:
        return None
    graph = model.conversion.folded
    constants = {**model.params, **graph.constants}
    return min(_index_bounds(graph, constants, {name}), default=None)


def _index_bounds(graph: Graph, constants: Mapping[str, Any], reached: set[str]) -> Iterator[int]:
    """Yields the bound of each index input that depends on one of the `reached` values; adds to `reached`."""
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


def words(model: Model) -> tuple[str, ...]:
    """Returns the strings in a model's graph: keys, categories and entries of lists; none without a graph."""
    if model.conversion is None:
        return ()
    graph = model.conversion.folded
    lists = [value for node in graph.walk() for value in node.attributes.values()] + list(graph.constants.values())
    entries = (entry for value in lists if isinstance(value, tuple | np.ndarray) for entry in np.ravel(value).tolist())
    return tuple(sorted({entry for entry in entries if isinstance(entry, str)}))
