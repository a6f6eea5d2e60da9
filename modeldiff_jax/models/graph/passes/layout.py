"""The layout in which parameters are kept.

A file may store the filters of a convolution as (outputs, inputs, taps...) where kernels read (taps..., inputs,
outputs), and a program that has them as arguments would transpose them at every call: a tenth of the time of a batch,
half that of a single image. So parameters that all nodes read in another order are transposed once, when the model is
made; the operator's transposition and the one back to the graph's layout cancel in compilation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from modeldiff_jax.models.graph.ir import Graph
from modeldiff_jax.models.graph.traits import Order, traits_of


def kernel_layouts(graph: Graph, params: Mapping[str, np.ndarray]) -> dict[str, Order]:
    """Returns the order of axes of each parameter that is kept in another order than the graph stores it in.

    A parameter is reordered if every node that reads it wants the same order, and nothing else reads it.
    """
    orders: dict[str, Order | None] = {}

    def read(name: str, order: Order | None) -> None:
        if name in params:
            orders[name] = order if orders.setdefault(name, order) == order else None

    for node in graph.walk():
        weight_order = traits_of(node).weight_order
        for position, name in enumerate(node.inputs):
            rank = np.ndim(params[name]) if name in params else 0
            read(name, weight_order(position, rank, node.attributes) if weight_order else None)
        for subgraph in node.subgraphs.values():
            for spec in subgraph.outputs:
                read(spec.name, None)
    for spec in graph.outputs:
        read(spec.name, None)
    return {name: order for name, order in orders.items() if order is not None}


def to_graph_layout(params: Mapping[str, Any], orders: Mapping[str, Order]) -> dict[str, Any]:
    """Returns the parameters with their axes in the graph's order."""
    return {
        name: value.transpose(np.argsort(orders[name])) if name in orders else value for name, value in params.items()
    }
