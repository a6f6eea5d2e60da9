"""Load-time partial evaluation: nodes that depend on no input are computed once, and constants become parameters.

The result has three kinds of constants:
- *static* ones, needed while tracing (shapes, axes, branch conditions, scalars): numpy, part of the program;
- *parameters*, every other constant that a remaining node reads: a pytree argument, never closed over, because XLA
  would write closed-over weights into the program text;
- unused ones, which are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax
import numpy as np

from modeldiff_jax.errors import InvalidInputError, InvalidModelError, NotStaticError
from modeldiff_jax.limits import Limits, folding
from modeldiff_jax.models.graph.ir import Graph, Node, captured, free_names
from modeldiff_jax.models.graph.registry import lookup
from modeldiff_jax.models.graph.trace import call
from modeldiff_jax.models.graph.traits import traits_of

# An integer constant of up to this size is shape arithmetic or an index list, a larger one a table of data.
_STATIC_INTEGERS = 4096


@dataclass(frozen=True, slots=True)
class Program:
    """A folded graph, whose nodes read its inputs, `graph.constants` (static) and `params` only."""

    graph: Graph
    params: Mapping[str, np.ndarray]


def fold(graph: Graph, limits: Limits) -> Program:
    """Evaluates all input-independent nodes, nested graphs included, and splits constants from parameters."""
    known: dict[str, np.ndarray] = dict(graph.constants)
    stored = sum(value.nbytes for value in known.values())
    folded = _fold_nodes(graph, known, limits, _FoldedBytes(limits, stored))
    used = free_names(replace(folded, constants={}))
    static = _static_cone(folded)
    constants: dict[str, np.ndarray] = {}
    params: dict[str, np.ndarray] = {}
    for name in sorted(used & known.keys()):
        value = known[name]
        (constants if name in static or _is_small(value) else params)[name] = value
    return Program(replace(folded, constants=constants), params)


class _FoldedBytes:
    """The number of bytes computed so far, and its limits.

    Args:
      limits: `folded_bytes` and `folded_unbacked` apply.
      stored: bytes of the constants that the model stores.
    """

    def __init__(self, limits: Limits, stored: int) -> None:
        self._limits, self._stored, self.total = limits, stored, 0

    def check(self, more: int, where: str) -> None:
        """Raises `LimitExceededError` if `more` bytes would exceed a limit."""
        self._limits.check("folded_bytes", self.total + more, where=where)
        self._limits.check("folded_unbacked", self.unbacked + more, where=where)

    @property
    def unbacked(self) -> int:
        """Bytes beyond twice the size of the stored constants."""
        return self.total - 2 * self._stored

    @property
    def available(self) -> int:
        """Bytes that can still be computed within the limits."""
        return min(self._limits.folded_bytes - self.total, self._limits.folded_unbacked - self.unbacked)


def _is_small(value: np.ndarray) -> bool:
    if value.dtype.kind in "iub":
        return value.size <= _STATIC_INTEGERS
    # XLA compiles a constant scalar exponent to multiplications and a constant bound to a clamp, but not parameters
    return value.size == 1 or value.dtype.kind == "O"


def _fold_nodes(graph: Graph, known: dict[str, np.ndarray], limits: Limits, folded: _FoldedBytes) -> Graph:
    remaining: list[Node] = []
    for node in graph.nodes:
        lookup(node)  # an unknown operator is an error at load, also in a branch never taken
        subgraphs = {name: _fold_nodes(sub, known, limits, folded) for name, sub in node.subgraphs.items()}
        node = replace(node, attributes={**node.attributes, **subgraphs})
        if traits_of(node).random or subgraphs or not captured(node) <= known.keys():
            remaining.append(node)
            continue
        _check_growth(node, known, folded)
        try:
            with jax.ensure_compile_time_eval(), folding(folded.unbacked):
                results = call(node, known)
        except InvalidInputError as error:  # the model's constants are at fault, not an input
            raise InvalidModelError(
                "A model's constants must fit its operators", got=error.got, where=error.where, fix="export it again"
            ) from error
        if any(isinstance(r, tuple) or r is None for r in results):  # sequences and optionals stay for tracing
            remaining.append(node)
            continue
        for name, result in zip(node.outputs, results, strict=False):
            known[name] = np.asarray(result)
            folded.total += known[name].nbytes
        folded.check(0, str(node))
    return replace(graph, nodes=tuple(remaining), constants={})


def _check_growth(node: Node, known: dict[str, np.ndarray], folded: _FoldedBytes) -> None:
    """Raises `LimitExceededError` if a node's outputs would exceed a limit, before they are computed.

    Operators whose output sizes are values of inputs check them themselves. All others make at most as many elements as
    the product of their inputs' sizes (broadcasting, outer products) or their sum (concatenation), so output shapes
    are traced only if these are large.
    """
    inputs = [known[name] for name in node.inputs if name]
    sizes = [max(1, value.size) for value in inputs]
    if max(math.prod(sizes), sum(sizes)) * 8 <= folded.available:
        return
    operator = lookup(node)
    static = {
        name for i, name in enumerate(node.inputs) if operator.is_static(i) or (name and known[name].dtype == object)
    }
    free = {name: known[name] for name in node.inputs if name and name not in static}
    try:
        outputs = jax.eval_shape(lambda values: call(node, {**known, **values}), free)
    except (NotStaticError, InvalidInputError):
        return  # needs the values themselves, and checks its output sizes; or fails again when it is computed
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(outputs))
    folded.check(size, str(node))


def _static_cone(graph: Graph) -> frozenset[str]:
    """Returns the names whose values a static input depends on, except through operators that read shapes only."""
    producer: dict[str, Node] = {}
    needed: set[str] = set()

    def visit(inner: Graph) -> None:
        for node in inner.nodes:
            producer.update((name, node) for name in node.outputs)
            operator = lookup(node)
            needed.update(name for i, name in enumerate(node.inputs) if name and operator.is_static(i))
            # conditions and trip counts: if they are known, one branch is compiled, or a loop unrolled
            needed.update(node.inputs[i] for i in traits_of(node).deciding if i < len(node.inputs) and node.inputs[i])
            for subgraph in node.subgraphs.values():
                visit(subgraph)

    visit(graph)
    pending = list(needed)
    while pending:
        node = producer.get(pending.pop())
        if node and not traits_of(node).reads_shapes:  # tracing always knows shapes
            inner_outputs = {s.name for sub in node.subgraphs.values() for s in sub.outputs}
            new = ({name for name in node.inputs if name} | inner_outputs) - needed
            needed |= new
            pending += new
    return frozenset(needed)
