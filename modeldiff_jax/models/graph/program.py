"""A graph read from a file -> `Model`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from modeldiff_jax.limits import Limits, active
from modeldiff_jax.models.graph.fold import fold
from modeldiff_jax.models.graph.ir import Graph
from modeldiff_jax.models.graph.trace import as_arrays, run
from modeldiff_jax.models.model import Conversion, Model, Origin
from modeldiff_jax.types import Params


def to_model(graph: Graph, origin: Origin, limits: Limits) -> Model:
    """Folds the graph and wraps it as a pure function of its parameters and inputs."""
    with active(limits):
        program = fold(graph, limits)
    names = tuple(spec.name for spec in graph.inputs)

    def apply(params: Params, *inputs: Any) -> Any:
        values = {**program.graph.constants, **params, **dict(zip(names, inputs, strict=True))}
        with active(limits):
            return as_arrays(run(program.graph, values))

    params = {name: jnp.asarray(value) for name, value in program.params.items()}
    conversion = Conversion(replace(graph, constants={}), program.graph, limits)
    return Model(apply, params, graph.inputs, graph.outputs, origin, conversion=conversion)
