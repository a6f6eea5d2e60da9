"""Probes of one space -> any model's input, and its outputs -> reactions.

Every model is run by `jax.vmap` over single samples (or over the fixed batch it was exported with). That is right for
models whose batch size is fixed, whose state keeps its batch elsewhere than on axis 0, or whose axis 0 is really time,
and makes a reaction independent of its neighbours and of padding. It runs as fast as the batch itself (XLA merges the
axes) and takes up to 15% longer to compile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from modeldiff_jax.errors import InvalidInputError, ModelDiffError, NonFiniteError, NotAdaptableError
from modeldiff_jax.models.family import structure
from modeldiff_jax.models.inputs.space import InputHint, ProbedInput, ProbeSpace, probed_input
from modeldiff_jax.models.model import Model
from modeldiff_jax.probes.steps import Step, steps_to
from modeldiff_jax.runtime.compilation import Program
from modeldiff_jax.runtime.flops import count_flops, count_values
from modeldiff_jax.runtime.threads import each
from modeldiff_jax.types import Array, Params

_CHUNK_VALUES = 2**22
"""Input values in one chunk: 16 MiB, which an image network's activations multiply by 10 to 100."""
_CHUNK_ROWS = 13
"""Half of 25, a quarter of 50, an eighth of 100: the usual numbers of pairs share one compilation, and an even number
of chunks keeps two cores busy, whose caches hold as many rows of most networks."""
_USUAL_PROBES = 100
"""Costs are traced at the size of a chunk of so many, which `react` need not trace again then."""
_STACKED_BYTES = 2**30
"""Parameters stacked at once, which are a second copy of them."""


@dataclass(frozen=True)
class Constant:
    """An array that hashes and compares by value."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    data: bytes

    @classmethod
    def of(cls, array: np.ndarray) -> Constant:
        return cls(array.shape, array.dtype, np.ascontiguousarray(array).tobytes())

    def array(self) -> np.ndarray:
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Reactions:
    """`reactions(params, x)`: probes to reactions as a pure function to be traced, differentiated, vmapped, compiled.

    Without parameters, so equal ones serve every model of one graph: pass it as a static argument of a program.

    Attributes:
      apply: of the model.
      index: of the probed input.
      others: values of the other inputs, in declared order.
      batch: samples in one call of `apply`; 0 for a model without batch axis.
      steps: from a probe to a sample.
    """

    apply: Callable[..., Any]
    index: int
    others: tuple[Constant, ...]
    batch: int
    steps: tuple[Step, ...]

    def native(self, x: Num[Array, "n ..."]) -> Num[jax.Array, "n ..."]:
        """Probes -> samples of the model's input."""

        def convert(probe: Any) -> Any:
            for step in self.steps:
                probe = step(probe)
            return jnp.asarray(probe)

        return jax.vmap(convert)(x)

    def inputs(self, main: Any) -> list[Any]:
        """All inputs of the model in declared order."""
        values: list[Any] = [other.array() for other in self.others]
        values.insert(self.index, main)
        return values

    def __call__(self, params: Params, x: Num[Array, "n ..."]) -> Float[jax.Array, "n c"]:
        n, size = x.shape[0], max(self.batch, 1)
        groups = -(-n // size)
        samples = self.native(x)
        if groups * size != n:
            samples = samples[jnp.minimum(jnp.arange(groups * size), n - 1)]

        def one(group: Any) -> Any:
            outputs = self.apply(params, *self.inputs(group if self.batch else group[0]))
            return jnp.concatenate([jnp.reshape(leaf, (size, -1)) for leaf in _telling(outputs)], axis=1)

        rows = jax.vmap(one)(samples.reshape(groups, size, *samples.shape[1:]))
        return rows.reshape(groups * size, -1)[:n]


_react = Program(Reactions.__call__, static_argnums=0)
_react_stacked = Program(
    lambda reactions, stacked, x: jax.lax.map(lambda params: reactions(params, x), stacked), static_argnums=0
)
_convert = Program(Reactions.native, static_argnums=0)


@dataclass(eq=False)
class Adapter:
    """A model that takes probes of a space and gives reactions.

    Attributes:
      model: the model as it was given.
      space: of the probes.
      steps: every change on the way, for people; empty when there is none.
      has_gradients: whether reactions can be differentiated by the probe.
      n_components: length C of a reaction; `None` for a black box, which only tells when asked.
      queries: samples `react` has evaluated so far.
    """

    model: Model
    space: ProbeSpace
    steps: tuple[str, ...]
    has_gradients: bool
    n_components: int | None
    _input: ProbedInput = field(repr=False)
    _path: Reactions = field(repr=False)
    queries: int = 0

    @property
    def params(self) -> Params:
        """The model's parameters, as `reactions` takes them."""
        return self.model.params

    @property
    def reactions(self) -> Reactions:
        """`reactions(params, x)`: (N, *space.shape) -> (N, C) float32, pure. `params` as `model.params`.

        A reaction is all float outputs, or all integer ones where there is no float one, flattened in declared order.

        Raises:
          NotAdaptableError: the model is a black box; use `react`.
        """
        if not self.model.traceable:
            raise NotAdaptableError(
                "Only a traceable model can be traced", got="a black box", where=self.model.origin.path, fix="use react"
            )
        return self._path

    @property
    def kinship(self) -> Hashable:
        """What adapters share whose reactions are one program with different parameters."""
        return (self._path, structure(self.params)) if self.model.traceable else self

    def react(self, x: Num[np.ndarray, "n ..."]) -> Float[np.ndarray, "n c"]:
        """Reactions to probes: compiled, in chunks of bounded memory, checked and counted.

        Args:
          x: (N, *space.shape) probes, N >= 1.
        Returns:
          (N, C) float32.
        Raises:
          InvalidInputError: `x` has a wrong shape or dtype, or a black box fails.
          NonFiniteError: an output is NaN or infinite.
        """
        return self.settled(react_together([self], x)[0])

    def flops(self, n: int, gradient: bool = False) -> float | None:
        """Floating-point operations to react to `n` probes: an estimate, the same on every machine.

        Args:
          n: probes.
          gradient: with the gradient by the probe, which costs as much again: the way back without the weights.
        Returns:
          The number, or `None` for a black box, or for a gradient that does not exist.
        """
        if not self.model.traceable or (gradient and not self.has_gradients):
            return None
        return n * self._counted[0] * (2 if gradient else 1)

    def values(self, n: int) -> float | None:
        """Values written on the way to `n` reactions, were no two operations fused; `None` for a black box."""
        return n * self._counted[1] if self.model.traceable else None

    @cached_property
    def _counted(self) -> tuple[float, float]:
        """Operations and values of one reaction, from the trace that `react` uses for the usual number of probes."""
        rows = self._rows(_USUAL_PROBES)
        probes = jax.ShapeDtypeStruct((rows, *self.space.shape), self.space.dtype)
        jaxpr = _react.trace(self._path, self.params, probes).jaxpr
        return count_flops(jaxpr) / rows, count_values(jaxpr) / rows

    def _rows(self, n: int) -> int:
        """Rows of one chunk: as few chunks as the bound allows, all of nearly one size."""
        values = max(self.space.size, math.prod(self._input.shape) // self._size)
        bound = max(1, min(_CHUNK_ROWS, _CHUNK_VALUES // max(1, values)))
        return -(-n // -(-n // bound))

    @property
    def _size(self) -> int:
        return max(self._path.batch, 1)

    def _checked(self, x: Any) -> np.ndarray:
        probes = np.asarray(x)
        wanted = np.dtype(self.space.dtype)
        if probes.shape[1:] != self.space.shape or probes.ndim != len(self.space.shape) + 1 or not len(probes):
            got = f"shape {probes.shape}"
        elif not np.can_cast(probes.dtype, wanted, "same_kind"):
            got = f"dtype {probes.dtype}"
        else:
            return probes.astype(wanted, copy=False)
        raise InvalidInputError(
            f"Probes are {wanted} of shape (N, {', '.join(map(str, self.space.shape))})",
            got=got,
            where=self.model.origin.path,
        )

    def settled(self, rows: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
        """Reactions just computed, counted and found to be finite; raises `NonFiniteError` where they are not."""
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

    def _ask(self, chunk: np.ndarray, start: int) -> np.ndarray:
        """Reactions of a black box: its own batch size where that is fixed, else the whole chunk at once."""
        native = np.asarray(_convert(self._path, chunk)).astype(self._input.dtype, copy=False)
        spec = self._input.model.inputs[self._input.index]
        free = self._path.batch > 0 and isinstance(spec.shape[0], str)
        size = len(chunk) if free else self._size
        rows = []
        for at in range(0, len(chunk), size):
            group = native[at : at + size]
            real = len(group)
            if real < size:
                group = np.concatenate([group, np.repeat(group[-1:], size - real, axis=0)])
            where = f"{self.model.origin.path}, inputs {start + at} to {start + at + real - 1}"
            rows.append(self._call(group if self._path.batch else group[0], size, where)[:real])
        return np.concatenate(rows)

    def _call(self, main: np.ndarray, size: int, where: str) -> np.ndarray:
        others = [
            value if axis is None else np.repeat(np.take(value, [0], axis), size, axis)
            for value, axis in ((v, self._input.batch_axes[name]) for name, v in self._input.others.items())
        ]
        others.insert(self._input.index, main)
        try:
            outputs = [np.asarray(leaf) for leaf in jax.tree.leaves(self._path.apply(self.params, *others))]
        except ModelDiffError:
            raise
        except Exception as error:  # whatever a stranger's function raises
            raise InvalidInputError(
                "A black box must answer its inputs", got=f"{type(error).__name__}: {error}", where=where
            ) from error
        telling = [np.asarray(leaf, np.float32) for leaf in _telling(outputs)]
        if any(leaf.size % size or (size > 1 and leaf.shape[:1] != (size,)) for leaf in telling) or not telling:
            raise InvalidInputError(
                "A black box gives numbers, one row for each input",
                got=f"{size} inputs, outputs {', '.join(f'{o.dtype}{list(o.shape)}' for o in outputs) or 'none'}",
                where=where,
            )
        return np.concatenate([leaf.reshape(size, -1) for leaf in telling], axis=1)


def react_together(
    adapters: Sequence[Adapter], x: Num[np.ndarray, "n ..."], *, stacked: bool | None = None
) -> list[Float[np.ndarray, "n c"]]:
    """Reactions of models of one `kinship` to the same probes, by one compilation.

    Args:
      adapters: all of one kinship.
      x: (N, *space.shape) probes, N >= 1.
      stacked: whether parameters are stacked and gone over within one program, or handed to one program in turn; None
        for what suits the device. On CPU one after another is faster, by threads; stacked under `vmap`, convolutions
        become grouped ones and take several times as long.
    Returns:
      (N, C) float32 for each, to be passed to its `settled`.
    Raises:
      InvalidInputError: `x` has a wrong shape or dtype, or a black box fails.
    """
    first = adapters[0]
    probes = first._checked(x)
    size = first._rows(len(probes))
    chunks = [probes[start : start + size] for start in range(0, len(probes), size)]
    if not first.model.traceable:  # kin to itself alone
        return [np.concatenate([first._ask(chunk, i * size) for i, chunk in enumerate(chunks)], dtype=np.float32)]
    padding = [(0, chunks[0].shape[0] - len(chunks[-1]))] + [(0, 0)] * (probes.ndim - 1)
    chunks[-1] = np.pad(chunks[-1], padding, mode="edge")  # one shape, one compilation
    on_cpu = jax.default_backend() == "cpu"
    if stacked or (stacked is None and not on_cpu and len(adapters) > 1):
        parts = _stacked(adapters, chunks)
    else:
        _react.lower(first._path, first.params, chunks[0]).compile()  # once, not in each thread
        calls = [(adapter.params, chunk) for adapter in adapters for chunk in chunks]

        def run(call: tuple[Params, np.ndarray]) -> np.ndarray:
            return np.asarray(_react(first._path, *call))

        rows = each(run, calls) if on_cpu else list(map(run, calls))
        parts = [rows[start : start + len(chunks)] for start in range(0, len(rows), len(chunks))]
    return [np.concatenate(rows, dtype=np.float32)[: len(probes)] for rows in parts]


def _stacked(adapters: Sequence[Adapter], chunks: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Reactions by model and chunk, as many models in one program as their parameters' bytes allow."""
    leaves = jax.tree.leaves(adapters[0].params)
    bound = max(1, _STACKED_BYTES // max(1, sum(leaf.nbytes for leaf in leaves)))
    together = -(-len(adapters) // -(-len(adapters) // bound))
    parts = []
    for start in range(0, len(adapters), together):
        group = list(adapters[start : start + together])
        filled = group + group[-1:] * (together - len(group))  # one shape, one compilation
        params = jax.tree.map(lambda *same: jnp.stack(same), *(adapter.params for adapter in filled))
        rows = [np.asarray(_react_stacked(adapters[0]._path, params, chunk)) for chunk in chunks]
        parts += [[part[i] for part in rows] for i in range(len(group))]
    return parts


def adapt(model: Model, space: ProbeSpace, hint: InputHint | None = None) -> Adapter:
    """Makes a model take probes of a space.

    Args:
      model: any model.
      space: of the probes, often another model's.
      hint: what the model does not say of its own input.
    Raises:
      NotAdaptableError: probes of this space cannot become this model's input.
    """
    own = probed_input(model, hint)
    steps = steps_to(own, space)
    batch = own.shape[0] if own.layout.startswith("N") else 0
    path = Reactions(own.model.apply, own.index, tuple(map(Constant.of, own.others.values())), batch, steps)
    texts = tuple(step.text for step in steps if step.text) + own.notes
    smooth, components = False, None
    if model.traceable:
        outputs = _outputs(own)
        components = sum(math.prod(leaf.shape) for leaf in outputs) // max(batch, 1)
        floats = (space.dtype, own.dtype, outputs[0].dtype)
        smooth = all(jnp.issubdtype(dtype, jnp.floating) for dtype in floats)
    return Adapter(model, space, texts, smooth, components, own, path)


def _outputs(own: ProbedInput) -> list[Any]:
    """Shapes and dtypes of the outputs reactions are made of; raises where there are none."""
    leaves = jax.tree.leaves(jax.eval_shape(own.model.apply, own.model.params, *own.structs))
    outputs = _telling_kind(leaves)
    batch = own.shape[0] if own.layout.startswith("N") else 1
    rows_apart = batch == 1 or all(leaf.shape[:1] == (batch,) for leaf in outputs)
    if not outputs or not rows_apart:
        raise NotAdaptableError(
            "A model must give one row of numbers for each input of its batch",
            got=", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves) or "no outputs",
            where=own.model.origin.path,
        )
    return outputs


def _telling_kind(leaves: list[Any]) -> list[Any]:
    floats = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return floats or [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.integer) or leaf.dtype == bool]


def _telling(outputs: Any) -> list[Any]:
    """The outputs a reaction is made of, as float32."""
    return [leaf.astype(jnp.float32) for leaf in _telling_kind(jax.tree.leaves(outputs))]
