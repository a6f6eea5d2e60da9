"""Runs a graph over an environment of values: concrete nodes fold in numpy, the rest is traced by JAX."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError, ModelDiffError, NotStaticError, UnsupportedModelError
from modeldiff_jax.limits import check_call, check_computed
from modeldiff_jax.models.graph.bounded import Padded, around, decided, looped, making, needs_bound, refuse_captured
from modeldiff_jax.models.graph.ir import Graph, Node
from modeldiff_jax.models.graph.passes.channels import computed_last, is_elementwise, is_kernel
from modeldiff_jax.models.graph.registry import Op, Value, concrete, lookup
from modeldiff_jax.models.graph.sizes import is_sizes, settle, traced_sizes
from modeldiff_jax.runtime.settings import default_promotion

Environment = dict[str, Value]

# Inputs that need not be known, but are decisions where an example has made them: condition, and number of trips
_DECIDING = {"If": (0,), "Loop": (0, 1)}


def run(graph: Graph, environment: Mapping[str, Value]) -> tuple[Value, ...]:
    """Evaluates the graph's outputs; `environment` holds its inputs, constants, parameters and outer values."""
    values: Environment = dict(environment)
    channels_last: set[str] = set()
    for node in graph.nodes:
        moves = is_elementwise(node) and not channels_last.isdisjoint(node.inputs)
        results = call(node, graph.opsets, values, moves)
        if moves or is_kernel(node):
            channels_last.add(node.outputs[0])
        values.update((name, result) for name, result in zip(node.outputs, results, strict=False) if name)
    return tuple(values[spec.name] for spec in graph.outputs)


def call(node: Node, opsets: Mapping[str, int], values: Environment, channels_last: bool = False) -> tuple[Value, ...]:
    """Evaluates one node, an elementwise one `channels_last` if asked to."""
    check_call()
    found = lookup(node, opsets)
    make = making(node)
    plain = computed_last(found.function) if channels_last else found.function
    function = make or around(node, plain, found.attributes)
    arguments: list[Value] = [values[name] if name else None for name in node.inputs]
    for i, value in enumerate(arguments):
        if found.is_static(i) or i in _DECIDING.get(node.op, ()):
            arguments[i] = decided(node, i, value)
        if found.is_static(i) and not make:
            arguments[i] = _static(arguments[i], node, found, i)
    if node.subgraphs:
        refuse_captured(node, values)
    if not node.subgraphs and not concrete(*arguments):  # a symbolic size next to data is data
        arguments = [traced_sizes(v) if is_sizes(v) and not found.is_static(i) else v for i, v in enumerate(arguments)]
    attributes = {
        name: _closure(value, values, node.op) if isinstance(value, Graph) else value
        for name, value in node.attributes.items()
    }
    if found.wants_n_outputs:
        attributes["n_outputs"] = len(node.outputs)
    if found.wants_stream:
        attributes["stream"] = zlib.crc32("/".join(node.outputs).encode())
    try:
        with np.errstate(all="ignore"), jax.named_scope(node.op), default_promotion():
            result = function(*arguments, **attributes)
            for value in result if isinstance(result, tuple) else (result,):
                check_computed(np.shape(value) if isinstance(value, (np.ndarray, jax.Array)) else ())
    except ModelDiffError as error:
        if not error.where:  # operators know the rule that broke, this place knows the node
            raise type(error)(
                error.rule, got=error.got, where=f"{node}, {_shapes(node, values)}", fix=error.fix
            ) from error
        raise
    except Exception as error:  # whatever numpy and JAX raise on values that a file or a caller chose
        raise InvalidInputError(
            "An operator's inputs must fit its definition",
            got=f"{_shapes(node, values)}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            where=str(node),
            fix="check the shapes and values of the model's inputs against `model.inputs`",
        ) from error
    results = result if isinstance(result, tuple) else (result,)
    if len(results) < sum(map(bool, node.outputs)):
        raise UnsupportedModelError(
            "An operator must give every output the model asks for",
            got=f"{len(results)} of {len(node.outputs)} outputs",
            where=str(node),
            fix="export the model without the further outputs",
        )
    return tuple(value if isinstance(value, Padded) else settle(value) for value in results)


def _closure(graph: Graph, values: Environment, op: str) -> Callable[..., tuple[Value, ...]]:
    """A nested graph as a function of its own inputs; it sees every outer value."""

    def function(*arguments: Value) -> tuple[Value, ...]:
        names = (spec.name for spec in graph.inputs)
        return run(graph, {**values, **dict(zip(names, arguments, strict=True))})

    return function if op == "If" else looped(function)


def _static(value: Value, node: Node, found: Op, position: int) -> Value:
    if value is None or isinstance(value, (np.ndarray, tuple)):
        return value
    if not isinstance(value, (jax.core.Tracer, Padded)):
        return np.asarray(value)
    raise NotStaticError(
        "This input must be known while tracing",
        got=f"input {position} (`{node.inputs[position]}`) of {found.name}, which depends on traced data",
        where=str(node),
        fix=f"fix the model input it comes from: model.bind(name=value){needs_bound(node)}",
    )


def _shapes(node: Node, values: Environment) -> str:
    return "inputs " + ", ".join(
        f"{v.dtype.name}{list(np.shape(v))}" if isinstance(v, (np.ndarray, jax.Array)) else type(v).__name__
        for v in (values.get(name) for name in node.inputs)
    )


def as_arrays(results: tuple[Value, ...]) -> Any:
    """One array, or a tuple of arrays in declared order."""
    settled = (r.settled() if isinstance(r, Padded) else r for r in results)
    arrays = tuple(r if isinstance(r, tuple) or r is None else jnp.asarray(r) for r in settled)
    return arrays[0] if len(arrays) == 1 else arrays
