"""A graph read from a file -> `Model`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from modeldiff_jax.limits import Limits, active
from modeldiff_jax.models.files import to_device
from modeldiff_jax.models.graph.fold import fold
from modeldiff_jax.models.graph.ir import Graph
from modeldiff_jax.models.graph.layout import Order, as_the_graph_says, kept_orders
from modeldiff_jax.models.graph.trace import as_arrays, run
from modeldiff_jax.models.model import Conversion, Model, Origin
from modeldiff_jax.types import Apply, Params

# Models of one graph share one function, so that JAX traces and compiles it once for all their weights.
_functions: WeakValueDictionary[str, Apply] = WeakValueDictionary()


def to_model(graph: Graph, origin: Origin, limits: Limits) -> Model:
    """Folds the graph and wraps it as a pure function of its parameters and inputs."""
    with active(limits):
        program = fold(graph, limits)
    orders = kept_orders(program.graph, program.params)
    apply = _function(program.graph, orders, limits)
    params = {
        name: to_device(value.transpose(orders[name]) if name in orders else value)
        for name, value in program.params.items()
    }
    conversion = Conversion(replace(graph, constants={}), program.graph, limits)
    return Model(apply, params, graph.inputs, graph.outputs, origin, conversion=conversion)


def _function(graph: Graph, orders: Mapping[str, Order], limits: Limits) -> Apply:
    signature = f"{_digest(graph)} {sorted(orders.items())} {limits}"
    known = _functions.get(signature)
    if known is not None:
        return known
    names = tuple(spec.name for spec in graph.inputs)

    def apply(params: Params, *inputs: Any) -> Any:
        values = {**graph.constants, **as_the_graph_says(params, orders), **dict(zip(names, inputs, strict=True))}
        with active(limits):
            return as_arrays(run(graph, values))

    _functions[signature] = apply
    return apply


def _digest(graph: Graph) -> str:
    """A hash of all that tracing can see of a graph: nodes, attributes, static constants and specs, not parameters."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, np.ndarray):
            digest.update(f"array {value.dtype} {value.shape}".encode())
            digest.update(repr(value.tolist()).encode() if value.dtype == object else value.tobytes())
        elif isinstance(value, Graph):
            digest.update(b"graph")
            for part in (value.inputs, value.outputs, sorted(value.opsets.items())):
                digest.update(repr(part).encode())
            for node in value.nodes:
                digest.update(repr((node.op, node.domain, node.name, node.inputs, node.outputs)).encode())
                add(node.attributes)
            add(value.constants)
        elif hasattr(value, "items"):
            for name in sorted(value):
                digest.update(repr(name).encode())
                add(value[name])
        else:
            digest.update(repr(value).encode())

    add(graph)
    return digest.hexdigest()
