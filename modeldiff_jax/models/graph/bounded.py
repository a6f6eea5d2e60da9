"""Operators that make as many rows as the data say (NonZero, NonMaxSuppression...), inside a compiled program.

Three ways to call a model with such operators:
- *eager*: operator by operator on the values at hand; nothing in this file is needed.
- *bounded*: each such operator gives `size` rows: first those that there are, then padding, and beside them the number
  there really are. What comes after must work row by row, by a rule that says so (`by_rows`); any other operator is
  refused, since its result could depend on the padding. Of what leaves the graph the padding is zero.
- *specialised*: each gives exactly as many rows as on an example, so nothing is padded and any operator may follow.
  What else the example decided (shapes, branches) is fixed likewise. Guards tell whether other inputs decide the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import UnsupportedModelError
from modeldiff_jax.limits import check_computed
from modeldiff_jax.models.graph.ir import Graph, Node, captured
from modeldiff_jax.models.graph.registry import Value

# A value that an example decided, by the first output of the node that reads it and the input's position
Place: TypeAlias = tuple[str, int]
_SHAPE_READERS = frozenset({"Shape", "Size"})
_DECIDED_ELEMENTS = 4096  # a longer input that must be known is data, not a decision
_EAGER = "call it operator by operator, model.eager(...), or specialise it on an example, model.specialise(...)"


@dataclass(frozen=True, slots=True)
class Dimension:
    """A number of rows that depends on data: `size` of them are kept; `count` there are, which may be more."""

    name: str
    size: int
    count: Value

    def mask(self) -> Value:
        """Which of the rows are real."""
        return jnp.arange(self.size) < self.count


@dataclass(frozen=True, slots=True)
class Padded:
    """A value whose `axis` is a bounded dimension: rows from `count` on are padding, of whatever value."""

    value: Value
    axis: int
    dimension: Dimension

    def settled(self) -> Value:
        """With zeros for padding."""
        places = (self.dimension.size,) + (1,) * (self.value.ndim - 1 - self.axis)
        return jnp.where(self.dimension.mask().reshape(places), self.value, jnp.zeros((), self.value.dtype))


Made: TypeAlias = tuple[Sequence[tuple[Value, int | None]], Value]
"""Results, each with the axis that is bounded, if any, and how many rows there really are."""
Maker: TypeAlias = Callable[..., Made]
Rule: TypeAlias = Callable[[Sequence[Value], Sequence[int | None], Mapping[str, Any]], int | None]
"""(inputs, the bounded axis of each, attributes) -> the bounded axis of every result; `None` refuses."""

_makers: dict[tuple[str, str], tuple[Maker, Callable[[Mapping[str, Any]], int]]] = {}
_rules: dict[tuple[str, str], Rule] = {}
F = TypeVar("F", bound=Callable[..., Any])


def maker(name: str, axis: Callable[[Mapping[str, Any]], int]) -> Callable[[F], F]:
    """Registers how an operator makes `size` rows. It takes the operator's inputs and attributes, and `size`.

    Args:
      name: of the operator.
      axis: attributes -> the axis of the first output that has the rows.
    """

    def register(function: F) -> F:
        _makers["", name] = (function, axis)
        return function

    return register


def row_by_row(*names: str) -> Callable[[F], F]:
    """Registers a rule for operators that make each row of their results from the same row of their inputs."""

    def register(function: F) -> F:
        _rules.update((("", name), function) for name in names)
        return function

    return register


def data_dependent(graph: Graph, inputs: Sequence[str]) -> dict[str, Node]:
    """The nodes that make as many rows as the data say, by their first outputs, not counting those in nested graphs.

    Args:
      graph: folded. inputs: names of its inputs that are not fixed.
    """
    constant = set(graph.constants) | {spec.name for spec in graph.inputs} - set(inputs)
    found = {}
    for node in graph.nodes:
        if node.op in _SHAPE_READERS or captured(node) <= constant:  # a shape is known whenever a program is compiled
            constant.update(node.outputs)
        elif (node.domain, node.op) in _makers:
            found[node.outputs[0]] = node
    return found


@dataclass(slots=True)
class Example:
    """What is decided while a model runs on an example.

    Attributes:
      watched: names of the data-dependent nodes.
      sizes: rows each of them made.
      decisions: values of inputs that must be known, small ones.
    """

    watched: frozenset[str]
    sizes: dict[str, int] = field(default_factory=dict)
    decisions: dict[Place, np.ndarray] = field(default_factory=dict)


@dataclass(slots=True)
class Bounds:
    """Sizes under which a graph is traced, and what is found meanwhile.

    Attributes:
      sizes: rows by node.
      decisions: of an example; `None` where rows are padded.
      dimensions: found, by node.
      guards: whether the example's decisions hold, by what was decided.
    """

    sizes: Mapping[str, int]
    decisions: Mapping[Place, np.ndarray] | None = None
    dimensions: dict[str, Dimension] = field(default_factory=dict)
    guards: dict[str, Value] = field(default_factory=dict)


_mode: ContextVar[Example | Bounds | None] = ContextVar("bounds", default=None)
_in_loop: ContextVar[bool] = ContextVar("in_loop", default=False)
M = TypeVar("M", Example, Bounds)


@contextmanager
def under(mode: M) -> Iterator[M]:
    """Graphs run meanwhile record into, or are bounded by, `mode`."""
    token = _mode.set(mode)
    try:
        yield mode
    finally:
        _mode.reset(token)


def looped(body: Callable[..., Any]) -> Callable[..., Any]:
    """The body of a loop, in which nothing is decided: each trip might decide otherwise."""

    def function(*arguments: Value) -> Any:
        token = _in_loop.set(True)
        try:
            return body(*arguments)
        finally:
            _in_loop.reset(token)

    return function


def decided(node: Node, position: int, value: Value) -> Value:
    """An input that must be known: recorded on an example, and put in the place of a traced one later."""
    mode = _mode.get()
    if mode is None or _in_loop.get() or isinstance(value, (tuple, Padded)) or value is None:
        return value
    place, traced = (node.outputs[0], position), isinstance(value, jax.core.Tracer)
    if isinstance(mode, Example):
        if not traced and np.size(value) <= _DECIDED_ELEMENTS and (node.domain, node.op) not in _makers:
            mode.decisions[place] = np.asarray(value)
    elif traced and mode.decisions is not None and place in mode.decisions:
        known = mode.decisions[place]
        same = jnp.shape(value) == known.shape
        mode.guards[f"input {position} of {node}"] = jnp.all(value == known) if same else jnp.asarray(False)
        return known
    return value


def making(node: Node) -> Callable[..., Any] | None:
    """What makes the rows of a data-dependent node where their number is given."""
    mode = _mode.get()
    named = isinstance(mode, Bounds) and node.outputs[0] in mode.sizes and not _in_loop.get()
    return _make(node, mode) if isinstance(mode, Bounds) and named else None


def around(node: Node, function: Callable[..., Any], defaults: Mapping[str, Any]) -> Callable[..., Any]:
    """A node's function, with what else is to be done for the mode.

    Args:
      node: a node. function: of its operator. defaults: of the operator's attributes.
    """
    mode = _mode.get()
    if isinstance(mode, Example):
        watched = node.outputs[0] in mode.watched and not _in_loop.get()
        return _watch(node, mode, function) if watched else function
    return _by_rows(node, function, defaults) if isinstance(mode, Bounds) else function


def _make(node: Node, mode: Bounds) -> Callable[..., Any]:
    name = node.outputs[0]

    def function(*arguments: Value, n_outputs: int = 1, **attributes: Any) -> tuple[Value, ...]:
        if any(isinstance(a, Padded) for a in arguments):
            raise _refusal(node, "rows that are padding")
        make, _ = _makers[node.domain, node.op]
        inputs = [None if a is None else jnp.asarray(a) for a in arguments]
        results, count = make(*inputs, size=mode.sizes[name], **attributes)
        dimension = mode.dimensions[name] = Dimension(name, mode.sizes[name], jnp.asarray(count, np.int32))
        if mode.decisions is not None:
            mode.guards[f"the {dimension.size} rows of {node}"] = dimension.count == dimension.size
            return tuple(value for value, _ in results)
        return tuple(value if axis is None else Padded(value, axis, dimension) for value, axis in results)

    return function


def _watch(node: Node, mode: Example, function: Callable[..., Any]) -> Callable[..., Any]:
    def watched(*arguments: Value, **attributes: Any) -> Any:
        result = function(*arguments, **attributes)
        first = result[0] if isinstance(result, tuple) else result
        mode.sizes[node.outputs[0]] = np.shape(first)[_makers[node.domain, node.op][1](attributes)]
        return result

    return watched


def _by_rows(node: Node, inner: Callable[..., Any], defaults: Mapping[str, Any]) -> Callable[..., Any]:
    """The node's function for inputs some of which may be padded."""

    def function(*arguments: Value, **attributes: Any) -> Any:
        padded = [a for a in arguments if isinstance(a, Padded)]
        if not padded:
            return inner(*arguments, **attributes)
        dimension = padded[0].dimension
        if any(a.dimension is not dimension for a in padded):
            raise _refusal(node, "rows of two data-dependent operators together")
        if node.op in _SHAPE_READERS:
            return _real_shape(padded[0], **attributes) if node.op == "Shape" else _real_size(padded[0])
        plain = [a.value if isinstance(a, Padded) else a for a in arguments]
        axes = [a.axis if isinstance(a, Padded) else None for a in arguments]
        rule = _rules.get((node.domain, node.op))
        axis = rule(plain, axes, {**defaults, **attributes}) if rule else None
        if axis is None:
            raise _refusal(node, f"{node.op} of {', '.join(_shown(a) for a in arguments if a is not None)}")
        results = inner(*plain, **attributes)
        wrapped = []
        for value in results if isinstance(results, tuple) else (results,):
            if value.ndim <= axis or value.shape[axis] != dimension.size:
                raise _refusal(node, f"a result of shape {tuple(value.shape)}")
            check_computed(value.shape)
            wrapped.append(Padded(jnp.asarray(value), axis, dimension))
        return tuple(wrapped)

    return function


def refuse_captured(node: Node, values: Mapping[str, Value]) -> None:
    """Refuses a nested graph that reads padded rows."""
    if _mode.get() is not None and any(isinstance(values.get(name), Padded) for name in captured(node)):
        raise _refusal(node, "rows that are padding, inside a nested graph")


def _real_shape(x: Padded, *, start: int = 0, end: int | None = None) -> Value:
    rank = x.value.ndim
    first, last, _ = slice(start, end).indices(rank)
    if not first <= x.axis < last:
        return np.asarray(x.value.shape[first:last], np.int64)
    dims = [_kept(x.dimension) if i == x.axis else n for i, n in enumerate(x.value.shape)]
    return jnp.stack([jnp.asarray(n, jnp.int32) for n in dims[first:last]])


def _real_size(x: Padded) -> Value:
    return _kept(x.dimension) * (x.value.size // x.dimension.size)


def _kept(dimension: Dimension) -> Value:
    return jnp.minimum(dimension.count, dimension.size)


def _shown(value: Value) -> str:
    if isinstance(value, Padded):
        return f"{list(value.value.shape)} with axis {value.axis} bounded by {value.dimension.size}"
    return str(list(np.shape(value)))


def _refusal(node: Node, got: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        "In a bounded model what follows a data-dependent operator works row by row",
        got=got,
        where=str(node),
        fix=_EAGER,
    )


def needs_bound(node: Node) -> str:
    """What else helps a node whose input must be known."""
    return (
        f"; or bound how many rows it makes: model.bounded({{'{node.outputs[0]}': size}})"
        if (node.domain, node.op) in _makers
        else ""
    )
