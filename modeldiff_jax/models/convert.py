"""Makes a `Model` of a graph that was read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import jax
import numpy as np

from modeldiff_jax.errors import NotStaticError
from modeldiff_jax.limits import Limits, active
from modeldiff_jax.models.files import to_device
from modeldiff_jax.models.graph.digest import digest
from modeldiff_jax.models.graph.ir import Graph
from modeldiff_jax.models.graph.passes.fold import fold
from modeldiff_jax.models.graph.passes.layout import kernel_layouts, to_graph_layout
from modeldiff_jax.models.graph.passes.split import split
from modeldiff_jax.models.graph.strings import is_string_array
from modeldiff_jax.models.graph.trace import as_array, as_arrays, run
from modeldiff_jax.models.graph.traits import Order
from modeldiff_jax.models.model import Conversion, Model, Origin
from modeldiff_jax.runtime import x64
from modeldiff_jax.runtime.compilation import Program
from modeldiff_jax.types import Apply, Params

# Models of one graph share one function, so that JAX traces and compiles it once for all their weights.
_functions: WeakValueDictionary[str, Apply] = WeakValueDictionary()


@dataclass(frozen=True, slots=True)
class Source:
    """Everything that determines a function made in this file; equal sources are one program.

    Attributes:
      graph: folded.
      orders: order of axes of each parameter that is kept in another layout than the graph's.
      wide: types of the inputs and parameters that have 64 bits.
      limits: limits it is traced under.
    """

    graph: Graph
    orders: Mapping[str, Order]
    wide: Mapping[str, np.dtype[Any]]
    limits: Limits


_sources: WeakKeyDictionary[Apply, Source] = WeakKeyDictionary()


def source_of(apply: Apply) -> Source | None:
    """Returns the source of a model's `apply`; `None` if it was not made of a file's graph, or has bound inputs."""
    return _sources.get(apply)


def to_model(graph: Graph, origin: Origin, limits: Limits, *, release: bool = False) -> Model:
    """Folds the graph and wraps it as a pure function of its parameters and inputs.

    Args:
      graph: as a reader gives it.
      origin: where it came from.
      limits: limits on hostile input.
      release: takes the constants out of `graph`, so that no weight takes memory twice once it is on the device.
    """
    with active(limits):
        program = fold(graph, limits)
    source, folded, weights = replace(graph, constants={}), program.graph, dict(program.params)
    if release and isinstance(graph.constants, dict):
        graph.constants.clear()
    del program
    orders = kernel_layouts(folded, weights)
    types = {spec.name: spec.dtype for spec in graph.inputs} | {name: value.dtype for name, value in weights.items()}
    wide = {name: dtype for name, dtype in types.items() if x64.is_64_bit(dtype)}
    params = {}
    for name in list(weights):
        value = weights.pop(name)
        params[name] = to_device(value.transpose(orders[name]) if name in orders else value)
    apply = _function(Source(folded, orders, wide, limits))
    return Model(apply, params, graph.inputs, graph.outputs, origin, conversion=Conversion(source, folded, limits))


def _function(source: Source) -> Apply:
    graph, orders, wide, limits = source.graph, source.orders, source.wide, source.limits
    signature = f"{digest(graph)} {sorted(orders.items())} {sorted(wide.items())} {limits}"
    known = _functions.get(signature)
    if known is not None:
        return known
    apply = _StringsFirst(source) if any(spec.holds_strings for spec in graph.inputs) else _applying(source)
    _functions[signature] = apply
    _sources[apply] = source
    return apply


def _applying(source: Source) -> Apply:
    names = tuple(spec.name for spec in source.graph.inputs)

    def apply(params: Params, *inputs: Any) -> Any:
        given = {**to_graph_layout(params, source.orders), **dict(zip(names, inputs, strict=True))}
        # outside of 64-bit mode JAX narrows the arrays that it is given: their values are lost, their types are not
        given.update((name, _in_type(given[name], dtype)) for name, dtype in source.wide.items())
        with active(source.limits):
            return as_arrays(run(source.graph, {**source.graph.constants, **given}))

    return apply


def _in_type(value: Any, dtype: np.dtype[Any]) -> Any:
    return x64.as_array(value, dtype) if isinstance(value, jax.Array) and not x64.is_64_bit(value.dtype) else value


class _StringsFirst:
    """The `apply` of a graph with string inputs, a type that JAX does not have.

    Operators that depend on strings alone run on the host, as operators with known inputs always do; `compiled` runs
    the others as one program.
    """

    def __init__(self, source: Source) -> None:
        strings = frozenset(spec.name for spec in source.graph.inputs if spec.holds_strings)
        self._source, self._parts = source, split(source.graph, strings)
        self._whole = _applying(source)
        self._second = Program(_applying(replace(source, graph=self._parts.second)))
        self._second_needs_values = False

    def __call__(self, params: Params, *inputs: Any) -> Any:
        return self._whole(params, *inputs)

    def compiled(self, params: Params, *inputs: Any) -> Any:
        """Runs the graph, its second part compiled, or operator by operator if that needs strings or their values."""
        graph, first = self._source.graph, self._parts.first
        given = dict(zip((spec.name for spec in graph.inputs), inputs, strict=True))
        with active(self._source.limits):
            values = run(first, {**graph.constants, **{spec.name: given.pop(spec.name) for spec in first.inputs}})
        passed, done = values[: self._parts.n_passed], values[self._parts.n_passed :]
        if self._second_needs_values or any(map(is_string_array, passed)):
            return self._whole(params, *inputs)
        try:
            results = self._second(params, *jax.tree.map(x64.as_array, passed), *given.values())
        except NotStaticError:
            self._second_needs_values = True
            return self._whole(params, *inputs)
        by_name = dict(zip(self._parts.done, map(as_array, done), strict=True))
        names = [spec.name for spec in self._parts.second.outputs]
        by_name.update(zip(names, (results,) if len(names) == 1 else results, strict=True))
        outputs = tuple(by_name[spec.name] for spec in graph.outputs)
        return outputs[0] if len(outputs) == 1 else outputs
