"""Operators whose number of rows depends on data (NonZero, NonMaxSuppression...), inside a compiled program.

This is bounded dynamism, as StableHLO calls it. A model with data-dependent operators can be called in three ways:
- *eager*: operator by operator on concrete values; nothing in this file is needed.
- *bounded*: each of these operators returns `size` rows, the real ones first, then padding, and the number of real
  rows. Operators that follow must work row by row, as a batching rule declares; any other operator is refused, since
  its result could depend on the padding. In the graph's outputs padding is zero.
- *specialised*: each returns exactly as many rows as on an example, so nothing is padded and any operator may follow.
  Everything else that the example decided (shapes, branches) is fixed likewise. Guards check that other inputs decide
  the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import UnsupportedModelError
from modeldiff_jax.limits import check_computed
from modeldiff_jax.models.graph.ir import Graph, Node, captured
from modeldiff_jax.models.graph.traits import traits_of
from modeldiff_jax.models.graph.values import Value
from modeldiff_jax.runtime import x64

Decision: TypeAlias = tuple[str, int]
"""A value that an example decided: the first output of the node that reads it, and the input's position."""
_DECIDED_ELEMENTS = 4096  # a longer input that must be known is data, not a decision
_EAGER = "call it operator by operator, model.eager(...), or specialise it on an example, model.specialise(...)"


@dataclass(frozen=True, slots=True)
class Dimension:
    """A number of rows that depends on data: arrays have `size` rows; `count` rows exist, which may be more."""

    name: str
    size: int
    count: Value

    def mask(self) -> Value:
        """Returns whether each row is real, bool (size,)."""
        return jnp.arange(self.size) < self.count

    @property
    def n_real(self) -> Value:
        """Number of real rows among the `size` rows."""
        return jnp.minimum(self.count, self.size)


@partial(jax.tree_util.register_dataclass, data_fields=["value"], meta_fields=["axis", "dimension"])
@dataclass(frozen=True, slots=True)
class Padded:
    """A value whose `axis` is a bounded dimension: rows from `count` on are padding of arbitrary value."""

    value: Value
    axis: int
    dimension: Dimension

    def zero_filled(self) -> Value:
        """Returns the value with zeros for padding."""
        real = self.dimension.mask().reshape((-1,) + (1,) * (self.value.ndim - 1 - self.axis))
        zero = np.zeros((), self.value.dtype)
        return x64.in_types_of((real, self.value), lambda: jnp.where(real, self.value, zero))


PaddedResults: TypeAlias = tuple[Sequence[tuple[Value, int | None]], Value]
"""Results, each with its bounded axis or None, and the number of real rows."""
BatchingRule: TypeAlias = Callable[[Sequence[Value], Sequence[int | None], Mapping[str, Any]], int | None]
"""(inputs, the bounded axis of each, attributes) -> the bounded axis of every result; None refuses."""
ShapeReader: TypeAlias = Callable[..., Value]
"""(padded value, **attributes) -> the operator's result, computed from the number of real rows."""

_Implementation: TypeAlias = tuple[Callable[..., PaddedResults], Callable[[Mapping[str, Any]], int]]
_padded_implementations: dict[tuple[str, str], _Implementation] = {}
_batching_rules: dict[tuple[str, str], BatchingRule] = {}
_shape_readers: dict[tuple[str, str], ShapeReader] = {}
F = TypeVar("F", bound=Callable[..., Any])


def padded_implementation(name: str, *, domain: str, axis: Callable[[Mapping[str, Any]], int]) -> Callable[[F], F]:
    """Registers a function that computes a data-dependent operator with a fixed number of rows.

    The function takes the operator's inputs and attributes, and `size`, and returns `PaddedResults`.

    Args:
      name, domain: of the operator.
      axis: attributes -> the axis of the first output along which the rows lie.
    """

    def register(function: F) -> F:
        _padded_implementations[domain, name] = (function, axis)
        return function

    return register


def batching_rule(*names: str, domain: str) -> Callable[[F], F]:
    """Registers a rule for operators that compute each row of their results from the same row of their inputs."""

    def register(function: F) -> F:
        _batching_rules.update(((domain, name), function) for name in names)
        return function

    return register


def padded_shape_reader(name: str, *, domain: str) -> Callable[[F], F]:
    """Registers a function that computes an operator that reads shapes for a padded value."""

    def register(function: F) -> F:
        _shape_readers[domain, name] = function
        return function

    return register


def data_dependent(graph: Graph, inputs: Sequence[str]) -> dict[str, Node]:
    """Returns the nodes whose number of rows depends on data, by first output; nested graphs are left out.

    Args:
      graph: folded. inputs: names of its inputs that are not fixed.
    """
    constant = set(graph.constants) | {spec.name for spec in graph.inputs} - set(inputs)
    dependent = {}
    for node in graph.nodes:
        if traits_of(node).reads_shapes or captured(node) <= constant:  # a compiled program's shapes are known
            constant.update(node.outputs)
        elif (node.domain, node.op) in _padded_implementations:
            dependent[node.outputs[0]] = node
    return dependent


@dataclass(slots=True)
class Example:
    """The decisions of a run on an example.

    Attributes:
      watched: names of the data-dependent nodes.
      sizes: number of rows of each of these nodes.
      decisions: values of small inputs that must be known.
    """

    watched: frozenset[str]
    sizes: dict[str, int] = field(default_factory=dict)
    decisions: dict[Decision, np.ndarray] = field(default_factory=dict)


@dataclass(slots=True)
class Bounds:
    """Sizes under which a graph is traced, and results of the trace.

    Attributes:
      sizes: number of rows by node.
      decisions: decisions of an example; None if rows are padded.
      dimensions: dimension of each traced node, by node.
      guards: description of a decision -> whether it holds for the inputs of this call.
    """

    sizes: Mapping[str, int]
    decisions: Mapping[Decision, np.ndarray] | None = None
    dimensions: dict[str, Dimension] = field(default_factory=dict)
    guards: dict[str, Value] = field(default_factory=dict)


_mode: ContextVar[Example | Bounds | None] = ContextVar("bounds", default=None)
_in_loop: ContextVar[bool] = ContextVar("in_loop", default=False)
M = TypeVar("M", Example, Bounds)


@contextmanager
def evaluating_under(mode: M) -> Iterator[M]:
    """Makes graphs that run in the block record into an `Example`, or follow `Bounds`."""
    token = _mode.set(mode)
    try:
        yield mode
    finally:
        _mode.reset(token)


def as_loop_body(body: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a loop's body that records and replaces no decision, since each iteration might decide otherwise."""

    def function(*arguments: Value) -> Any:
        token = _in_loop.set(True)
        try:
            return body(*arguments)
        finally:
            _in_loop.reset(token)

    return function


def decided(node: Node, position: int, value: Value) -> Value:
    """Records an input that must be known on the example run; substitutes the recorded value for a traced one later."""
    mode = _mode.get()
    if mode is None or _in_loop.get() or isinstance(value, (tuple, Padded)) or value is None:
        return value
    decision, traced = (node.outputs[0], position), isinstance(value, jax.core.Tracer)
    if isinstance(mode, Example):
        if not traced and np.size(value) <= _DECIDED_ELEMENTS and (node.domain, node.op) not in _padded_implementations:
            mode.decisions[decision] = np.asarray(value)
    elif traced and mode.decisions is not None and decision in mode.decisions:
        known = mode.decisions[decision]
        equal = x64.in_types_of((value, known), lambda: jnp.array_equal(value, known))
        mode.guards[f"input {position} of {node}"] = equal
        return known
    return value


def padded_function(node: Node) -> Callable[..., Any] | None:
    """Returns the padded implementation of a data-dependent node whose number of rows is bounded, else None."""
    mode = _mode.get()
    bounded = isinstance(mode, Bounds) and node.outputs[0] in mode.sizes and not _in_loop.get()
    return _padded_function(node, mode) if isinstance(mode, Bounds) and bounded else None


def for_mode(node: Node, function: Callable[..., Any], defaults: Mapping[str, Any]) -> Callable[..., Any]:
    """Wraps a node's function for the active evaluation mode.

    Args:
      node: a node.
      function: of its operator.
      defaults: of the operator's attributes.
    """
    mode = _mode.get()
    if isinstance(mode, Example):
        watched = node.outputs[0] in mode.watched and not _in_loop.get()
        return _recording_rows(node, mode, function) if watched else function
    return _row_by_row(node, function, defaults) if isinstance(mode, Bounds) else function


def _padded_function(node: Node, mode: Bounds) -> Callable[..., Any]:
    name = node.outputs[0]

    def function(*arguments: Value, n_outputs: int = 1, **attributes: Any) -> tuple[Value, ...]:
        if any(isinstance(a, Padded) for a in arguments):
            raise _refusal(node, "rows that are padding")
        implementation, _ = _padded_implementations[node.domain, node.op]
        traced = [a for a in arguments if isinstance(a, jax.Array)]
        make = partial(implementation, *map(_as_array, arguments), size=mode.sizes[name], **attributes)
        results, count = x64.in_types_of(traced, make)
        dimension = mode.dimensions[name] = Dimension(name, mode.sizes[name], jnp.asarray(count, np.int32))
        if mode.decisions is not None:
            mode.guards[f"the {dimension.size} rows of {node}"] = dimension.count == dimension.size
            return tuple(value for value, _ in results)
        return tuple(value if axis is None else Padded(value, axis, dimension) for value, axis in results)

    return function


def _as_array(value: Value) -> Value:
    return None if value is None else x64.as_array(value)


def _recording_rows(node: Node, mode: Example, function: Callable[..., Any]) -> Callable[..., Any]:
    def recording(*arguments: Value, **attributes: Any) -> Any:
        result = function(*arguments, **attributes)
        first = result[0] if isinstance(result, tuple) else result
        axis = _padded_implementations[node.domain, node.op][1](attributes)
        mode.sizes[node.outputs[0]] = np.shape(first)[axis]
        return result

    return recording


def _row_by_row(node: Node, inner: Callable[..., Any], defaults: Mapping[str, Any]) -> Callable[..., Any]:
    """Wraps a node's function so that its inputs may be padded."""

    def function(*arguments: Value, **attributes: Any) -> Any:
        padded = [a for a in arguments if isinstance(a, Padded)]
        if not padded:
            return inner(*arguments, **attributes)
        dimension = padded[0].dimension
        if any(a.dimension is not dimension for a in padded):
            raise _refusal(node, "rows of two data-dependent operators together")
        reader = _shape_readers.get((node.domain, node.op))
        if reader:
            return reader(padded[0], **attributes)
        values = [a.value if isinstance(a, Padded) else a for a in arguments]
        axes = [a.axis if isinstance(a, Padded) else None for a in arguments]
        rule = _batching_rules.get((node.domain, node.op))
        axis = rule(values, axes, {**defaults, **attributes}) if rule else None
        if axis is None:
            raise _refusal(node, f"{node.op} of {', '.join(_shown(a) for a in arguments if a is not None)}")
        results = inner(*values, **attributes)
        padded_results = []
        for value in results if isinstance(results, tuple) else (results,):
            if value.ndim <= axis or value.shape[axis] != dimension.size:
                raise _refusal(node, f"a result of shape {tuple(value.shape)}")
            check_computed(value.shape)
            padded_results.append(Padded(jnp.asarray(value), axis, dimension))
        return tuple(padded_results)

    return function


def refuse_padded_captures(node: Node, values: Mapping[str, Value]) -> None:
    """Refuses a nested graph that reads padded rows."""
    if _mode.get() is not None and any(isinstance(values.get(name), Padded) for name in captured(node)):
        raise _refusal(node, "rows that are padding, inside a nested graph")


def _shown(value: Value) -> str:
    if isinstance(value, Padded):
        return f"{list(value.value.shape)} with axis {value.axis} bounded by {value.dimension.size}"
    return str(list(np.shape(value)))


def _refusal(node: Node, got: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        "In a bounded model every operator after a data-dependent one works row by row",
        got=got,
        where=str(node),
        fix=_EAGER,
    )


def bounding_advice(node: Node) -> str:
    """Returns the advice to bound a data-dependent node, for messages; empty for any other."""
    return (
        f"; or bound its number of rows: model.bounded({{'{node.outputs[0]}': size}})"
        if (node.domain, node.op) in _padded_implementations
        else ""
    )
