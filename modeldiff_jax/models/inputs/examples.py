"""Plausible random inputs for any model: right shapes, right ranges, integers within the vocabulary."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from modeldiff_jax.models.graph.ir import Graph
from modeldiff_jax.models.inputs.sizes import Resolved, Sizes, is_state, main_input, resolve
from modeldiff_jax.models.model import Model
from modeldiff_jax.types import TensorSpec

_DEFAULT_VOCABULARY = 256  # bytes; every larger vocabulary holds these too
_MASK = re.compile(r"(?i).*mask.*")
_SEGMENT = re.compile(r"(?i).*(token_type|segment|position).*")
_LENGTH = re.compile(r"(?i).*len.*")
# Operators that hand indices on unchanged
_PASSING = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose"})


@dataclass(frozen=True)
class Examples:
    """Inputs a model runs on.

    Attributes:
      resolved: the model with its deciding inputs bound, and the sizes.
      inputs: name -> array for every input still open.
    """

    resolved: Resolved
    inputs: dict[str, np.ndarray]

    @property
    def model(self) -> Model:
        """The model these inputs are for."""
        return self.resolved.model


def example_inputs(model: Model, key: int = 0, *, batch: int = 1, sizes: Sizes | None = None) -> Examples:
    """Makes random inputs for a model.

    Images are uniform in [0, 1], other floats uniform in [-1, 1], recurrent state is zero, masks are one, lengths are
    whole, other integers are uniform below the vocabulary.

    Args:
      model: any model.
      key: seed of the generator; the same key gives the same values.
      batch: size of the batch axis where it is dynamic.
      sizes: known sizes, as `resolve` takes them.
    Raises:
      InvalidInputError: no working sizes were found.
    """
    resolved = resolve(model, batch, sizes)
    generator = np.random.default_rng(key)
    length = max(resolved.shapes[main_input(resolved.model).name][1:], default=1) if resolved.model.inputs else 1
    inputs = {
        spec.name: _values(resolved.model, spec, resolved.shapes[spec.name], length, generator)
        for spec in resolved.model.inputs
    }
    return Examples(resolved, inputs)


def _values(
    model: Model, spec: TensorSpec, shape: tuple[int, ...], length: int, generator: np.random.Generator
) -> np.ndarray:
    kind = spec.dtype.kind
    if is_state(spec):
        return np.zeros(shape, spec.dtype)
    if kind == "b" or (kind in "iu" and _MASK.match(spec.name)):
        return np.ones(shape, spec.dtype)
    if kind in "iu":
        if _SEGMENT.match(spec.name):
            return np.zeros(shape, spec.dtype)
        if _LENGTH.match(spec.name) and len(shape) <= 1:
            return np.full(shape, length, spec.dtype)
        high = min(vocabulary(model, spec.name) or _DEFAULT_VOCABULARY, np.iinfo(spec.dtype).max)
        return generator.integers(0, high, shape).astype(spec.dtype)
    low = 0.0 if len(shape) == 4 else -1.0
    return generator.uniform(low, 1.0, shape).astype(spec.dtype)


def vocabulary(model: Model, name: str) -> int | None:
    """Number of values an integer input may take, read off the tables it indexes.

    Args:
      model: any model; `None` for those without a graph.
      name: the input.
    Returns:
      Rows of the smallest embedding table (Gather) or classes (OneHot) it reaches; `None` when it reaches neither.
    """
    if model.conversion is None:
        return None
    sizes = list(_table_sizes(model, model.conversion.folded, {name}))
    return min(sizes, default=None)


def _table_sizes(model: Model, graph: Graph, reached: set[str]) -> Any:
    for node in graph.nodes:
        for subgraph in node.subgraphs.values():
            yield from _table_sizes(model, subgraph, reached)
        inputs = node.inputs
        if node.op in _PASSING and inputs[0] in reached:
            reached.update(node.outputs)
        elif node.op == "Gather" and inputs[1] in reached:
            table = _constant(model, inputs[0])
            if table is not None:
                yield int(table.shape[int(node.attributes.get("axis", 0))])
        elif node.op == "OneHot" and inputs[0] in reached:
            depth = _constant(model, inputs[1])
            if depth is not None:
                yield int(np.asarray(depth).reshape(-1)[0])


def _constant(model: Model, name: str) -> Any:
    assert model.conversion is not None
    return model.conversion.folded.constants.get(name, model.params.get(name))
