"""The functions behind `Model.bind`, `Model.bounded` and `Model.specialise`: a model's `apply`, called another way."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from modeldiff_jax.errors import InvalidInputError, NotStaticError
from modeldiff_jax.models.graph.bounded import Bounds, Example, evaluating_under
from modeldiff_jax.runtime import x64
from modeldiff_jax.runtime.settings import on_device
from modeldiff_jax.types import Apply, Params


@dataclass(frozen=True, slots=True)
class Frozen:
    """An array that can be hashed, as a part of a cache key."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    data: bytes | tuple[str, ...]

    @classmethod
    def from_array(cls, array: np.ndarray) -> Frozen:
        """Returns the hashable form of an array."""
        data = tuple(array.ravel().tolist()) if array.dtype == object else array.tobytes()
        return cls(array.shape, array.dtype, data)

    def array(self) -> np.ndarray:
        """Returns the array."""
        flat = np.frombuffer(self.data, self.dtype) if isinstance(self.data, bytes) else np.array(self.data, object)
        return flat.reshape(self.shape)


@lru_cache(maxsize=256)
def with_bounds(inner: Apply, sizes: tuple[tuple[str, int], ...], n_outputs: int) -> Apply:
    """Returns `inner` with bounded numbers of rows; mask and count of each are further outputs.

    Args:
      inner: `apply` of a model with data-dependent operators.
      sizes: (node, number of rows) of each of these.
      n_outputs: number of outputs of `inner`.
    """

    def apply(params: Params, *inputs: Any) -> Any:
        with evaluating_under(Bounds(dict(sizes))) as bounds:
            outputs = inner(params, *inputs)
        dimensions = [bounds.dimensions[name] for name, _ in sizes]
        added = [value for dimension in dimensions for value in (dimension.mask(), dimension.count)]
        return (*(outputs if n_outputs > 1 else (outputs,)), *added)

    return apply


def guarded(inner: Apply, example: Example, where: str) -> Apply:
    """Returns `inner` compiled for the decisions of an example; the function refuses inputs that decide otherwise.

    Args:
      inner: `apply` of a model.
      example: decisions of a run.
      where: the model, for messages.
    """

    @jax.jit
    def compiled(params: Params, *inputs: Any) -> Any:
        with evaluating_under(Bounds(example.sizes, example.decisions)) as bounds:
            return inner(params, *inputs), bounds.guards

    def apply(params: Params, *inputs: Any) -> Any:
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, inputs))):
            raise NotStaticError(
                "A specialised model is called on values, which it compares with its example's",
                got="traced inputs",
                where=where,
                fix="trace the model as it was, or in bounded form: model.bounded(size)",
            )
        outputs, guards = compiled(*on_device((params, *map(x64.as_array, inputs))))
        broken = [decision for decision, holds in jax.device_get(guards).items() if not holds]
        if broken:
            raise InvalidInputError(
                "A specialised model takes inputs that decide as its example did",
                got=f"otherwise: {'; '.join(broken)}",
                where=where,
                fix="call model.eager(...), specialise it on these inputs, or bound it: model.bounded(size)",
            )
        return jax.tree.map(np.asarray, outputs)

    return apply


@lru_cache(maxsize=256)  # models of one `apply` that are bound alike keep sharing one compilation
def with_fixed(inner: Apply, frozen: tuple[tuple[int, Frozen], ...], n_inputs: int) -> Apply:
    """Returns `inner` as a function of the inputs that are not fixed.

    Args:
      inner: `apply` of a model.
      frozen: (position, value) of each fixed input.
      n_inputs: number of inputs of `inner`.
    """
    fixed = {i: value.array() for i, value in frozen}

    def apply(params: Params, *inputs: Any) -> Any:
        free = iter(inputs)
        return inner(params, *(fixed[i] if i in fixed else next(free) for i in range(n_inputs)))

    return apply
