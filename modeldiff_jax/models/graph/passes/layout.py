"""The order of axes in which parameters are kept.

ONNX stores the filters of a convolution as (outputs, inputs, taps...), kernels read (taps..., inputs, outputs), and a
program that has them as arguments would turn them round at every call: a tenth of the time of a batch, half that of a
single image. So they, and the weights of `Gemm` and of recurrent cells, are turned once, when the model is made; where
they are used, the two turns cancel in compilation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from modeldiff_jax.models.graph.ir import Graph

Order: TypeAlias = tuple[int, ...]
_CELLS = ("LSTM", "GRU", "RNN")
_RECURRENT = [{(cell, position)} for cell in _CELLS for position in (1, 2)]
"""Readers of the weights of input and state, (directions, gates, size), of which kernels read (size, gates)."""


def kept_orders(graph: Graph, params: Mapping[str, np.ndarray]) -> dict[str, Order]:
    """Axes of the parameters that are kept in another order than the graph says: filters that nothing else reads."""
    readers: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for node in graph.walk():
        for position, name in enumerate(node.inputs):
            turned = bool(node.attributes.get("transB")) if node.op == "Gemm" else node.op in ("Conv", *_CELLS)
            readers[name].add((node.op if turned and not node.domain else "", position))
        for subgraph in node.subgraphs.values():
            for name in _results(subgraph):
                readers[name].add(("", 0))
    for name in _results(graph):
        readers[name].add(("", 0))
    orders = {}
    for name, value in params.items():
        if readers[name] == {("Conv", 1)} and value.ndim > 2:
            orders[name] = (*range(2, value.ndim), 1, 0)
        elif readers[name] in _RECURRENT and value.ndim == 3:
            orders[name] = (0, 2, 1)
        elif readers[name] == {("Gemm", 1)} and value.ndim == 2:
            orders[name] = (1, 0)
    return orders


def as_the_graph_says(params: Mapping[str, Any], orders: Mapping[str, Order]) -> dict[str, Any]:
    """The parameters with their axes in the graph's order."""
    return {
        name: value.transpose(np.argsort(orders[name])) if name in orders else value for name, value in params.items()
    }


def _results(graph: Graph) -> list[str]:
    return [spec.name for spec in graph.outputs]
