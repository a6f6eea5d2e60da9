"""Load-time partial evaluation: what depends on no input is computed once, what is left takes parameters.

Three kinds of constants come out of it:
- *static* ones, needed while tracing (shapes, axes, branch conditions, scalars): numpy, part of the program;
- *parameters*, every other constant a remaining node reads: a pytree argument, never closed over, because XLA would
  write closed-over weights into the program text;
- dead ones, dropped.
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

# An integer constant up to this size is shape arithmetic or an index list, above it a table of data.
_STATIC_INTEGERS = 4096


@dataclass(frozen=True, slots=True)
class Program:
    """A graph that reads nothing but its inputs, `graph.constants` (static) and `params`."""

    graph: Graph
    params: Mapping[str, np.ndarray]


def fold(graph: Graph, limits: Limits) -> Program:
    """Evaluates all input-independent nodes, nested graphs included, and splits constants from parameters."""
    known: dict[str, np.ndarray] = dict(graph.constants)
    held = sum(value.nbytes for value in known.values())
    folded = _fold_nodes(graph, known, limits, spent=_Spent(limits, held))
    used = free_names(replace(folded, constants={}))
    static = _static_cone(folded)
    constants: dict[str, np.ndarray] = {}
    params: dict[str, np.ndarray] = {}
    for name in sorted(used & known.keys()):
        value = known[name]
        (constants if name in static or _is_small(value) else params)[name] = value
    return Program(replace(folded, constants=constants), params)


class _Spent:
    """Bytes computed so far, and what they are held to."""

    def __init__(self, limits: Limits, held: int) -> None:
        self._limits, self._held, self.total = limits, held, 0

    def check(self, more: int, where: str) -> None:
        """Refuses `more` bytes where they pass a limit."""
        self._limits.check("folded_bytes", self.total + more, where=where)
        self._limits.check("folded_unbacked", self.unbacked + more, where=where)

    @property
    def unbacked(self) -> int:
        """How much of it the model's own size does not explain."""
        return self.total - 2 * self._held

    @property
    def left(self) -> int:
        """How many bytes pass no limit."""
        return min(self._limits.folded_bytes - self.total, self._limits.folded_unbacked - self.unbacked)


def _is_small(value: np.ndarray) -> bool:
    if value.dtype.kind in "iub":
        return value.size <= _STATIC_INTEGERS
    # A scalar exponent or bound that XLA can see compiles to a multiplication or a clamp; as a parameter it does not.
    return value.size == 1 or value.dtype.kind == "O"


def _fold_nodes(graph: Graph, known: dict[str, np.ndarray], limits: Limits, spent: _Spent) -> Graph:
    left: list[Node] = []
    for node in graph.nodes:
        lookup(node)  # an unknown operator is an error at load, also in a branch never taken
        subgraphs = {name: _fold_nodes(sub, known, limits, spent) for name, sub in node.subgraphs.items()}
        node = replace(node, attributes={**node.attributes, **subgraphs})
        if traits_of(node).random or subgraphs or not captured(node) <= known.keys():
            left.append(node)
            continue
        _check_growth(node, known, spent)
        try:
            with jax.ensure_compile_time_eval(), folding(spent.unbacked):
                results = call(node, known)
        except InvalidInputError as error:  # no input had a part in it
            raise InvalidModelError(
                "A model's constants must fit its operators", got=error.got, where=error.where, fix="export it again"
            ) from error
        if any(isinstance(r, tuple) or r is None for r in results):  # sequences and optionals stay for tracing
            left.append(node)
            continue
        for name, result in zip(node.outputs, results, strict=False):
            known[name] = np.asarray(result)
            spent.total += known[name].nbytes
        spent.check(0, str(node))
    return replace(graph, nodes=tuple(left), constants={})


def _check_growth(node: Node, known: dict[str, np.ndarray], spent: _Spent) -> None:
    """Refuses a node whose outputs would pass the limit, before they are computed.

    Operators that make tensors out of values check these themselves. All others make at most as many elements as the
    product of their inputs' sizes (broadcasting, outer products) or the sum (concatenation), so only large ones are
    asked for their output shapes.
    """
    inputs = [known[name] for name in node.inputs if name]
    sizes = [max(1, value.size) for value in inputs]
    if max(math.prod(sizes), sum(sizes)) * 8 <= spent.left:
        return
    found = lookup(node)
    static = {
        name for i, name in enumerate(node.inputs) if found.is_static(i) or (name and known[name].dtype == object)
    }
    free = {name: known[name] for name in node.inputs if name and name not in static}
    try:
        outputs = jax.eval_shape(lambda values: call(node, {**known, **values}), free)
    except (NotStaticError, InvalidInputError):
        return  # needs the values themselves, which bound what it makes; or fails, and says so when computed
    made = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(outputs))
    spent.check(made, str(node))


def _static_cone(graph: Graph) -> frozenset[str]:
    """Names whose values a static input depends on, stopping at operators that read shapes only."""
    producer: dict[str, Node] = {}
    needed: set[str] = set()

    def visit(inner: Graph) -> None:
        for node in inner.nodes:
            producer.update((name, node) for name in node.outputs)
            found = lookup(node)
            needed.update(name for i, name in enumerate(node.inputs) if name and found.is_static(i))
            # conditions and trip counts: a known one takes one branch, or unrolls
            needed.update(node.inputs[i] for i in traits_of(node).deciding if i < len(node.inputs) and node.inputs[i])
            for subgraph in node.subgraphs.values():
                visit(subgraph)

    visit(graph)
    pending = list(needed)
    while pending:
        maker = producer.get(pending.pop())
        if maker and not traits_of(maker).reads_shapes:  # tracing always knows shapes
            inner_outputs = {s.name for sub in maker.subgraphs.values() for s in sub.outputs}
            fresh = ({name for name in maker.inputs if name} | inner_outputs) - needed
            needed |= fresh
            pending += fresh
    return frozenset(needed)
