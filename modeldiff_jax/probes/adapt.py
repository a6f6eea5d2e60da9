"""Adapters, which convert probes of a space to a model's input and its outputs to reactions."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from modeldiff_jax.errors import InvalidInputError, ModelDiffError, NonFiniteError, NotAdaptableError
from modeldiff_jax.models.family import structure
from modeldiff_jax.models.inputs.probed_input import InputHint, ProbedInput, probed_input
from modeldiff_jax.models.inputs.space import ProbeSpace
from modeldiff_jax.models.model import Model
from modeldiff_jax.probes.reactions import (
    Constant,
    ReactionFunction,
    numeric_outputs,
    react,
    react_stacked,
    reaction_outputs,
    to_samples,
)
from modeldiff_jax.probes.steps import steps_to
from modeldiff_jax.runtime.flops import count_flops, count_values
from modeldiff_jax.runtime.settings import default_promotion
from modeldiff_jax.runtime.threads import each
from modeldiff_jax.types import Params

_CHUNK_VALUES = 2**22
"""Input values in one chunk: 16 MiB, which an image network's activations multiply by 10 to 100."""
_CHUNK_ROWS = 13
"""Half of 25, a quarter of 50, an eighth of 100: the usual numbers of pairs share one compilation, and an even number
of chunks keeps two cores busy, whose caches hold as many rows of most networks."""
_STACKED_BYTES = 2**30
"""Parameters stacked at once, which are a second copy of them."""
_USUAL_PROBES = 100
"""Costs are traced for a chunk of this many probes, so that `react` need not trace it again."""


@dataclass(eq=False)
class Adapter:
    """A model that takes probes of a space and returns reactions.

    Attributes:
      model: the model as it was given.
      space: the probes' space.
      steps: every change that turns probes into the model's input, in words; empty when there is none.
      has_gradients: whether reactions can be differentiated by the probe.
      n_components: length C of a reaction; None for a black box, whose outputs are unknown until it is called.
      queries: samples `react` has evaluated so far.
    """

    model: Model
    space: ProbeSpace
    steps: tuple[str, ...]
    has_gradients: bool
    n_components: int | None
    _input: ProbedInput = field(repr=False)
    _function: ReactionFunction = field(repr=False)
    queries: int = 0

    @property
    def params(self) -> Params:
        """The model's parameters, as `function` takes them."""
        return self.model.params

    @property
    def function(self) -> ReactionFunction:
        """`function(params, x)`: (N, *space.shape) -> (N, C) float32, pure. `params` as `model.params`.

        A reaction is all float outputs, or all integer ones where there is no float one, flattened in declared order.

        Raises:
          NotAdaptableError: the model is a black box; use `react`.
        """
        if not self.model.traceable:
            raise NotAdaptableError(
                "Only a traceable model can be traced", got="a black box", where=self.model.origin.path, fix="use react"
            )
        return self._function

    @property
    def program_key(self) -> Hashable:
        """A key that adapters share whose reactions are one program with different parameters."""
        return (self._function, structure(self.params)) if self.model.traceable else self

    def react(self, x: Num[np.ndarray, "n ..."]) -> Float[np.ndarray, "n c"]:
        """Returns reactions to probes: compiled, in chunks of bounded memory, checked and counted.

        Args:
          x: (N, *space.shape) probes, N >= 1.
        Returns:
          (N, C) float32.
        Raises:
          InvalidInputError: `x` has a wrong shape or dtype, or a black box fails.
          NonFiniteError: an output is NaN or infinite.
        """
        return self.verified(react_together([self], x)[0])

    def flops(self, n: int, gradient: bool = False) -> float | None:
        """Estimates the floating-point operations of reactions to `n` probes, the same on every machine.

        Args:
          n: number of probes.
          gradient: whether to add the gradient by the probe, which costs as much again: a backward pass without the
            weights.
        Returns:
          The number, or `None` for a black box, or for a gradient that does not exist.
        """
        if not self.model.traceable or (gradient and not self.has_gradients):
            return None
        return n * self._counted[0] * (2 if gradient else 1)

    def values(self, n: int) -> float | None:
        """Returns the number of values written for `n` reactions without fusion; `None` for a black box."""
        return n * self._counted[1] if self.model.traceable else None

    @cached_property
    def _counted(self) -> tuple[float, float]:
        """Counts operations and values of one reaction, in the trace that `react` uses for a usual number of probes."""
        rows = self.chunk_rows(_USUAL_PROBES)
        probes = jax.ShapeDtypeStruct((rows, *self.space.shape), self.space.dtype)
        jaxpr = react.trace(self._function, self.params, probes).jaxpr
        return count_flops(jaxpr) / rows, count_values(jaxpr) / rows

    def chunk_rows(self, n: int) -> int:
        """Returns the rows of one chunk of `n` probes: as few chunks as memory allows, all of nearly one size."""
        values = max(self.space.size, math.prod(self._input.shape) // self._size)
        most_rows = max(1, min(_CHUNK_ROWS, _CHUNK_VALUES // max(1, values)))
        return -(-n // -(-n // most_rows))

    @property
    def _size(self) -> int:
        return max(self._function.batch, 1)

    def check_probes(self, x: Any) -> np.ndarray:
        """Returns probes in the space's dtype; raises `InvalidInputError` where their shape or dtype is wrong."""
        probes = np.asarray(x)
        dtype = np.dtype(self.space.dtype)
        if probes.shape[1:] != self.space.shape or probes.ndim != len(self.space.shape) + 1 or not len(probes):
            got = f"shape {probes.shape}"
        elif not np.can_cast(probes.dtype, dtype, "same_kind"):
            got = f"dtype {probes.dtype}"
        else:
            return probes.astype(dtype, copy=False)
        raise InvalidInputError(
            f"Probes are {dtype} of shape (N, {', '.join(map(str, self.space.shape))})",
            got=got,
            where=self.model.origin.path,
        )

    def verified(self, rows: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
        """Counts reactions just computed as queries and returns them; raises `NonFiniteError` unless all are finite."""
        self.queries += len(rows)
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if bad.size:
            raise NonFiniteError(
                "A model's outputs must be finite",
                got=f"NaN or infinity for {bad.size} of {len(rows)} inputs, the first of them input {bad[0]}",
                where=self.model.origin.path,
                fix="check the value range the model takes, and its weights",
            )
        return rows

    def query(self, chunk: np.ndarray, start: int) -> np.ndarray:
        """Returns reactions of a black box, called with its batch size if that is fixed, else with all at once.

        Args:
          chunk: (M, *space.shape) probes.
          start: the number of the first probe, for messages.
        """
        native = np.asarray(to_samples(self._function, chunk)).astype(self._input.dtype, copy=False)
        spec = self._input.model.inputs[self._input.index]
        free = self._function.batch > 0 and isinstance(spec.shape[0], str)
        size = len(chunk) if free else self._size
        rows = []
        for first in range(0, len(chunk), size):
            group = native[first : first + size]
            given = len(group)
            if given < size:
                group = np.concatenate([group, np.repeat(group[-1:], size - given, axis=0)])
            where = f"{self.model.origin.path}, inputs {start + first} to {start + first + given - 1}"
            rows.append(self._call(group if self._function.batch else group[0], size, where)[:given])
        return np.concatenate(rows)

    def _call(self, main: np.ndarray, size: int, where: str) -> np.ndarray:
        others = [
            value if axis is None else np.repeat(np.take(value, [0], axis), size, axis)
            for value, axis in ((v, self._input.batch_axes[name]) for name, v in self._input.others.items())
        ]
        others.insert(self._input.index, main)
        try:
            outputs = [np.asarray(leaf) for leaf in jax.tree.leaves(self._function.apply(self.params, *others))]
        except ModelDiffError:
            raise
        except Exception as error:  # an untrusted function may raise anything
            raise InvalidInputError(
                "A black box returns outputs", got=f"{type(error).__name__}: {error}", where=where
            ) from error
        leaves = [np.asarray(leaf, np.float32) for leaf in reaction_outputs(outputs)]
        if any(leaf.size % size or (size > 1 and leaf.shape[:1] != (size,)) for leaf in leaves) or not leaves:
            raise InvalidInputError(
                "A black box returns numbers, one row for each input",
                got=f"{size} inputs, outputs {', '.join(f'{o.dtype}{list(o.shape)}' for o in outputs) or 'none'}",
                where=where,
            )
        return np.concatenate([leaf.reshape(size, -1) for leaf in leaves], axis=1)


def react_together(
    adapters: Sequence[Adapter], x: Num[np.ndarray, "n ..."], *, stacked: bool | None = None
) -> list[Float[np.ndarray, "n c"]]:
    """Returns the reactions of models of one `program_key` to the same probes, by one compilation.

    Args:
      adapters: all of one `program_key`.
      x: (N, *space.shape) probes, N >= 1.
      stacked: whether one program loops over stacked parameters, or is called once for each model; None for the faster
        one on the device. On CPU calls in several threads are faster. Stacked under `vmap`, convolutions would become
        grouped ones and take several times as long.
    Returns:
      (N, C) float32 for each, to be passed to its `verified`.
    Raises:
      InvalidInputError: `x` has a wrong shape or dtype, or a black box fails.
    """
    first = adapters[0]
    probes = first.check_probes(x)
    size = first.chunk_rows(len(probes))
    chunks = [probes[start : start + size] for start in range(0, len(probes), size)]
    if not first.model.traceable:  # no other has its key
        return [np.concatenate([first.query(chunk, i * size) for i, chunk in enumerate(chunks)], dtype=np.float32)]
    padding = [(0, chunks[0].shape[0] - len(chunks[-1]))] + [(0, 0)] * (probes.ndim - 1)
    chunks[-1] = np.pad(chunks[-1], padding, mode="edge")  # one shape, one compilation
    on_cpu = jax.default_backend() == "cpu"
    if stacked or (stacked is None and not on_cpu and len(adapters) > 1):
        parts = _stacked(adapters, chunks)
    else:
        with default_promotion():  # JAX's settings differ by thread, and each set of them has its own programs
            react.lower(first.function, first.params, chunks[0]).compile()  # once, not in each thread
        calls = [(adapter.params, chunk) for adapter in adapters for chunk in chunks]

        def run(call: tuple[Params, np.ndarray]) -> np.ndarray:
            with default_promotion():
                return np.asarray(react(first.function, *call))

        rows = each(run, calls) if on_cpu else list(map(run, calls))
        parts = [rows[start : start + len(chunks)] for start in range(0, len(rows), len(chunks))]
    return [np.concatenate(rows, dtype=np.float32)[: len(probes)] for rows in parts]


def _stacked(adapters: Sequence[Adapter], chunks: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Returns reactions by model and chunk, as many models in one program as their parameters' bytes allow."""
    leaves = jax.tree.leaves(adapters[0].params)
    most_models = max(1, _STACKED_BYTES // max(1, sum(leaf.nbytes for leaf in leaves)))
    together = -(-len(adapters) // -(-len(adapters) // most_models))
    parts = []
    for start in range(0, len(adapters), together):
        group = list(adapters[start : start + together])
        filled = group + group[-1:] * (together - len(group))  # one shape, one compilation
        params = jax.tree.map(lambda *same: jnp.stack(same), *(adapter.params for adapter in filled))
        rows = [np.asarray(react_stacked(adapters[0].function, params, chunk)) for chunk in chunks]
        parts += [[part[i] for part in rows] for i in range(len(group))]
    return parts


def adapt(model: Model, space: ProbeSpace | None = None, hint: InputHint | None = None) -> Adapter:
    """Adapts a model to probes of a space.

    Args:
      model: any model.
      space: the probes' space, often another model's; None for that of the model's input.
      hint: what the file does not say of the model's input.
    Raises:
      NotAdaptableError: probes of this space cannot be converted to this model's input.
    """
    probed = probed_input(model, hint)
    space = space or probed.space
    steps = steps_to(probed, space)
    batch = probed.shape[0] if probed.layout.startswith("N") else 0
    function = ReactionFunction(
        probed.model.apply, probed.index, tuple(map(Constant.of, probed.others.values())), batch, steps
    )
    texts = tuple(step.text for step in steps if step.text) + probed.notes
    smooth, components = False, None
    if model.traceable:
        outputs = _outputs(probed)
        components = sum(math.prod(leaf.shape) for leaf in outputs) // max(batch, 1)
        floats = (space.dtype, probed.dtype, outputs[0].dtype)
        smooth = all(jnp.issubdtype(dtype, jnp.floating) for dtype in floats)
    return Adapter(model, space, texts, smooth, components, probed, function)


def _outputs(probed: ProbedInput) -> list[Any]:
    """Returns shapes and dtypes of the outputs that reactions are made of; raises where there are none."""
    leaves = jax.tree.leaves(jax.eval_shape(probed.model.apply, probed.model.params, *probed.structs))
    outputs = numeric_outputs(leaves)
    batch = probed.shape[0] if probed.layout.startswith("N") else 1
    rows_apart = batch == 1 or all(leaf.shape[:1] == (batch,) for leaf in outputs)
    if not outputs or not rows_apart:
        raise NotAdaptableError(
            "A model must return one row of numbers for each input of its batch",
            got=", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves) or "no outputs",
            where=probed.model.origin.path,
        )
    return outputs
