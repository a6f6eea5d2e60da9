"""Runs a graph over an environment of values: nodes with concrete inputs in numpy, all others traced by JAX."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from modeldiff_jax.errors import InvalidInputError, ModelDiffError, NotStaticError, UnsupportedModelError
from modeldiff_jax.limits import check_call, check_computed, check_live, live_within
from modeldiff_jax.models.graph.bounded import (
    Padded,
    as_loop_body,
    bounding_advice,
    decided,
    for_mode,
    padded_function,
    refuse_padded_captures,
)
from modeldiff_jax.models.graph.channels import ChannelAxes, in_channels_last
from modeldiff_jax.models.graph.ir import Graph, Node
from modeldiff_jax.models.graph.liveness import LiveValues, n_bytes
from modeldiff_jax.models.graph.registry import Op, lookup
from modeldiff_jax.models.graph.sizes import is_sizes, settle, traced_sizes
from modeldiff_jax.models.graph.strings import Strings, encoded, is_string_array, needs_indices, on_indices
from modeldiff_jax.models.graph.traits import traits_of
from modeldiff_jax.models.graph.values import Value, concrete
from modeldiff_jax.runtime import x64
from modeldiff_jax.runtime.settings import default_promotion

Environment = dict[str, Value]


def run(graph: Graph, environment: Mapping[str, Value]) -> tuple[Value, ...]:
    """Evaluates the graph's outputs.

    Args:
      graph: any graph.
      environment: its inputs, constants and parameters, and values of outer graphs, by name.
    """
    values, channels = LiveValues(environment), ChannelAxes()
    with live_within():
        for node, read in zip(graph.nodes, graph.last_reads, strict=True):
            axis = channels.of_inputs(node)
            values.computed(node, call(node, values, axis))
            channels.propagate(node, axis)
            values.drop(read)
    outputs = tuple(values[spec.name] for spec in graph.outputs)
    check_live(sum(map(n_bytes, outputs)))  # they live on in what this graph is nested in
    return outputs


def call(node: Node, values: Environment, channel_axis: int | None = None) -> tuple[Value, ...]:
    """Evaluates one node.

    Args:
      node: any node.
      values: every value that the node reads, by name.
      channel_axis: axis of channels in the graph, for an elementwise node that is to be computed channels last.
    """
    check_call()
    operator, traits = lookup(node), traits_of(node)
    padded = padded_function(node)
    plain = operator.function if channel_axis is None else in_channels_last(operator.function, channel_axis)
    function = padded or for_mode(node, plain, operator.attributes)
    arguments: list[Value] = [values[name] if name else None for name in node.inputs]
    for i, value in enumerate(arguments):
        static = operator.is_static(i)
        if static or i in traits.deciding:
            arguments[i] = decided(node, i, value)
        if static and not padded:
            arguments[i] = _static(arguments[i], node, operator, i)
    if not node.subgraphs and needs_indices(arguments):
        function = on_indices(node, function)
    if node.subgraphs:
        refuse_padded_captures(node, values)
    if not node.subgraphs and not concrete(*arguments):  # a symbolic size next to data is data
        data = [is_sizes(value) and not operator.is_static(i) for i, value in enumerate(arguments)]
        arguments = [traced_sizes(v) if is_data else v for v, is_data in zip(arguments, data, strict=True)]
        arguments = [_saturated(v) if i in operator.index_inputs else v for i, v in enumerate(arguments)]
    attributes = {
        name: _closure(value, values, traits.branches) if isinstance(value, Graph) else value
        for name, value in node.attributes.items()
    }
    if operator.wants_n_outputs:
        attributes["n_outputs"] = len(node.outputs)
    if operator.wants_stream:
        attributes["stream"] = zlib.crc32("/".join(node.outputs).encode())
    try:
        with np.errstate(all="ignore"), jax.named_scope(node.op), default_promotion():
            if padded or node.subgraphs:  # both take care of 64-bit types themselves
                with live_within():
                    result = function(*arguments, **attributes)
            else:
                values_in = [v for i, v in enumerate(arguments) if not operator.is_static(i)]
                result = x64.in_types_of(values_in, partial(function, *arguments, **attributes))
            for value in result if isinstance(result, tuple) else (result,):
                check_computed(np.shape(value) if isinstance(value, (np.ndarray, jax.Array)) else ())
    except ModelDiffError as error:
        if not error.where:  # operators know the rule that was broken, but not their node
            raise type(error)(
                error.rule, got=error.got, where=f"{node}, {_shapes(node, values)}", fix=error.fix
            ) from error
        raise
    except Exception as error:  # numpy and JAX may raise anything on values that a file or a caller chose
        raise InvalidInputError(
            "An operator's inputs must fit its definition",
            got=f"{_shapes(node, values)}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            where=str(node),
            fix="check the shapes and values of the model's inputs against `model.inputs`",
        ) from error
    results = result if isinstance(result, tuple) else (result,)
    if len(results) < sum(map(bool, node.outputs)):
        raise UnsupportedModelError(
            "An operator must give every output the model uses",
            got=f"{len(results)} of {len(node.outputs)} outputs",
            where=str(node),
            fix="export the model without the further outputs",
        )
    return tuple(value if isinstance(value, (Padded, Strings)) else settle(value) for value in results)


def _closure(graph: Graph, values: Environment, branch: bool) -> Callable[..., tuple[Value, ...]]:
    """Returns a nested graph as a function of its inputs; it also reads values of the outer graph."""

    def function(*arguments: Value) -> tuple[Value, ...]:
        names = (spec.name for spec in graph.inputs)
        environment = {**values, **dict(zip(names, arguments, strict=True))}
        if not branch:
            return run(graph, environment)
        with live_within():  # another branch, traced next to this one, never runs beside it
            return run(graph, environment)

    return function if branch else as_loop_body(function)


def _static(value: Value, node: Node, operator: Op, position: int) -> Value:
    if value is None or isinstance(value, (np.ndarray, tuple, Strings)):
        return value
    if not isinstance(value, (jax.core.Tracer, Padded)):
        return np.asarray(value)
    raise NotStaticError(
        "This input must be known while tracing",
        got=f"input {position} (`{node.inputs[position]}`) of {operator.name}, which depends on traced data",
        where=str(node),
        fix=f"fix the model input it comes from: model.bind(name=value){bounding_advice(node)}",
    )


def _saturated(value: Value) -> Value:
    return replace(value, value=x64.saturated(value.value)) if isinstance(value, Padded) else x64.saturated(value)


def _shapes(node: Node, values: Environment) -> str:
    return "inputs " + ", ".join(
        f"{v.dtype.name}{list(np.shape(v))}" if isinstance(v, (np.ndarray, jax.Array)) else type(v).__name__
        for v in (values.get(name) for name in node.inputs)
    )


def as_arrays(results: tuple[Value, ...]) -> Any:
    """Returns the array of a single result, or the arrays of several as a tuple."""
    arrays = tuple(map(as_array, results))
    return arrays[0] if len(arrays) == 1 else arrays


def as_array(result: Value) -> Any:
    """Returns a result as a program returns it: with zeros for padding, and `Strings` for strings."""
    if isinstance(result, Padded):
        return result.zero_filled()
    if isinstance(result, tuple):
        return tuple(map(as_array, result))
    if isinstance(result, Strings) or result is None:
        return result
    return encoded(result) if is_string_array(result) else x64.as_array(result)
