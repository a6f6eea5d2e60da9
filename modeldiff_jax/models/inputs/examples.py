"""Makes plausible random inputs for any model: right shapes, right ranges, integers within the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modeldiff_jax.models.inputs.roles import Role, main_input, role, usual_value
from modeldiff_jax.models.inputs.sizes import Resolved, Sizes, resolve
from modeldiff_jax.models.inputs.vocabulary import vocabulary, words
from modeldiff_jax.models.model import Model
from modeldiff_jax.types import TensorSpec

_DEFAULT_VOCABULARY = 256  # bytes; every larger vocabulary holds these too


@dataclass(frozen=True)
class Examples:
    """Inputs a model runs on.

    Attributes:
      resolved: the model with its deciding inputs bound, and the sizes.
      inputs: name -> array for every input that is not fixed.
    """

    resolved: Resolved
    inputs: dict[str, np.ndarray]

    @property
    def model(self) -> Model:
        """The model these inputs are for."""
        return self.resolved.model


def example_inputs(model: Model, key: int = 0, *, batch: int = 1, sizes: Sizes | None = None) -> Examples:
    """Makes random inputs for a model.

    Images are uniform in [0, 1], other floats uniform in [-1, 1], recurrent state is zero, masks are one, positions are
    0, 1, 2..., lengths are full, other integers are uniform below the vocabulary, strings are words in the graph.

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
    kind, purpose = spec.dtype.kind, role(spec)
    if spec.holds_strings:
        return generator.choice(np.array(words(model) or ("0",), object), shape)
    if purpose is Role.LENGTH and len(shape) <= 1:
        return np.full(shape, length, spec.dtype)
    if kind == "b":
        return np.ones(shape, spec.dtype)
    if purpose in (Role.STATE, Role.CACHE) or (kind in "iu" and purpose is not Role.DATA):
        return usual_value(spec, shape)
    if kind in "iu":
        high = min(vocabulary(model, spec.name) or _DEFAULT_VOCABULARY, np.iinfo(spec.dtype).max)
        return generator.integers(0, high, shape).astype(spec.dtype)
    low = 0.0 if len(shape) == 4 else -1.0
    return generator.uniform(low, 1.0, shape).astype(spec.dtype)
