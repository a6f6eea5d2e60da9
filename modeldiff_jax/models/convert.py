"""A graph read from a file -> `Model`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from modeldiff_jax.limits import Limits, active
from modeldiff_jax.models.files import to_device
from modeldiff_jax.models.graph.digest import digest
from modeldiff_jax.models.graph.ir import Graph
from modeldiff_jax.models.graph.passes.fold import fold
from modeldiff_jax.models.graph.passes.layout import kernel_layouts, to_graph_layout
from modeldiff_jax.models.graph.trace import as_arrays, run
from modeldiff_jax.models.graph.traits import Order
from modeldiff_jax.models.model import Conversion, Model, Origin
from modeldiff_jax.types import Apply, Params

# Models of one graph share one function, so that JAX traces and compiles it once for all their weights.
_functions: WeakValueDictionary[str, Apply] = WeakValueDictionary()


@dataclass(frozen=True, slots=True)
class Source:
    """All that a function made here knows: equal sources are one program.

    Attributes:
      graph: folded.
      orders: of the axes of parameters that are not kept as the graph says.
      limits: it is traced under.
    """

    graph: Graph
    orders: Mapping[str, Order]
    limits: Limits


_sources: WeakKeyDictionary[Apply, Source] = WeakKeyDictionary()


def source_of(apply: Apply) -> Source | None:
    """What a model's `apply` was made of; `None` for functions not made of a file's graph, bound ones too."""
    return _sources.get(apply)


def to_model(graph: Graph, origin: Origin, limits: Limits, *, release: bool = False) -> Model:
    """Folds the graph and wraps it as a pure function of its parameters and inputs.

    Args:
      graph: as a reader gives it.
      origin: where it came from.
      limits: bounds on hostile input.
      release: takes the constants out of `graph`, so that no weight takes memory twice once it is on the device.
    """
    with active(limits):
        program = fold(graph, limits)
    source, folded, weights = replace(graph, constants={}), program.graph, dict(program.params)
    if release and isinstance(graph.constants, dict):
        graph.constants.clear()
    del program
    orders = kernel_layouts(folded, weights)
    params = {}
    for name in list(weights):
        value = weights.pop(name)
        params[name] = to_device(value.transpose(orders[name]) if name in orders else value)
    apply = _function(folded, orders, limits)
    return Model(apply, params, graph.inputs, graph.outputs, origin, conversion=Conversion(source, folded, limits))


def _function(graph: Graph, orders: Mapping[str, Order], limits: Limits) -> Apply:
    signature = f"{digest(graph)} {sorted(orders.items())} {limits}"
    known = _functions.get(signature)
    if known is not None:
        return known
    names = tuple(spec.name for spec in graph.inputs)

    def apply(params: Params, *inputs: Any) -> Any:
        values = {**graph.constants, **to_graph_layout(params, orders), **dict(zip(names, inputs, strict=True))}
        with active(limits):
            return as_arrays(run(graph, values))

    _functions[signature] = apply
    _sources[apply] = Source(graph, orders, limits)
    return apply
