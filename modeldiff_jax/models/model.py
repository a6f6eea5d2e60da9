"""What every later room sees of a model: a pure function, its parameters, its specs and where it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError, NotStaticError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.graph.bounded import Bounds, Example, data_dependent, under
from modeldiff_jax.models.graph.ir import Graph
from modeldiff_jax.runtime.compilation import Program
from modeldiff_jax.runtime.settings import on_device
from modeldiff_jax.types import ANY, Apply, Params, TensorSpec


@dataclass(frozen=True)
class Origin:
    """Where a model came from.

    Attributes:
      path: the file, or a description of the object.
      format: `onnx`, `flax-linen`, `flax-nnx`, `callable`.
      sha256: of the file's bytes, or of the parameters where there is no file; empty for a callable.
    """

    path: str
    format: str
    sha256: str = ""


@dataclass(frozen=True)
class Conversion:
    """What the converter read and what it made of it, for a model that came from a file.

    Attributes:
      source: the graph as it stands in the file, without its constants.
      folded: the graph that runs, with the constants that stay part of the program.
      limits: the bounds it was read under.
    """

    source: Graph
    folded: Graph
    limits: Limits


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model as a pure function.

    Attributes:
      apply: `apply(params, *inputs) -> outputs`; jit, vmap, grad and export work on it when `traceable`.
      params: pytree of arrays. Those of a file have the file's names and values; filters of convolutions and turned
        matrices are kept with their axes as kernels read them, (taps..., inputs, outputs).
      inputs: specs in declared order.
      outputs: specs in declared order.
      origin: file or object it was made from.
      traceable: False for a black box, which takes and gives numpy arrays and has neither gradients nor weights.
      bound: inputs fixed by `bind`, with their values (long ones: their shapes).
      conversion: the graphs behind `apply`, where it was made from a file.
    """

    apply: Apply
    params: Params
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    origin: Origin
    traceable: bool = True
    bound: Mapping[str, Any] = field(default_factory=dict)
    conversion: Conversion | None = field(default=None, repr=False)

    @cached_property
    def _compiled(self) -> Callable[..., Any]:
        return Program(self.apply) if self.traceable else self.apply

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs in declared order."""
        return tuple(spec.name for spec in self.inputs)

    @property
    def has_gradients(self) -> bool:
        """Whether outputs can be differentiated by at least one input."""
        return self.traceable and any(np.issubdtype(spec.dtype, np.floating) for spec in self.inputs)

    def to_dict(self) -> dict[str, Any]:
        """Origin and specs as JSON-able data."""
        return {
            "path": self.origin.path,
            "format": self.origin.format,
            "sha256": self.origin.sha256,
            "inputs": [str(spec) for spec in self.inputs],
            "outputs": [str(spec) for spec in self.outputs],
            "bound": dict(self.bound),
        }

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Runs the model, compiled once per input shape.

        Args:
          *args: inputs in declared order, numpy or JAX arrays. **named: the others by name.
        Returns:
          One array, or a tuple of arrays in declared order.
        Raises:
          InvalidInputError: an input is missing, unknown, given twice, or of a wrong rank, size or type.
        """
        return self._compiled(self.params, *self.arrange(args, named))

    def arrange(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
        """Checks inputs against the specs and puts them into declared order, as arrays of the declared dtypes."""
        names = self.input_names
        if len(args) > len(names):
            raise self._bad_input("at most as many inputs as declared", f"{len(args)} positional inputs")
        given = dict(zip(names, args, strict=False))
        twice, unknown = set(given) & set(named), set(named) - set(names)
        if twice or unknown:
            raise self._bad_input("each input once and by its name", f"inputs {sorted(twice | unknown)}")
        given.update(named)
        missing = [name for name in names if name not in given]
        if missing:
            raise self._bad_input("every input", f"no value for {', '.join(missing)}")
        sizes: dict[str, int] = {}
        return tuple(self._check(spec, given[spec.name], sizes) for spec in self.inputs)

    def _check(self, spec: TensorSpec, value: Any, sizes: dict[str, int]) -> Any:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
        if array.ndim != len(spec.shape):
            raise self._bad_input(f"{len(spec.shape)} axes for {spec}", f"shape {tuple(array.shape)}")
        for dim, size in zip(spec.shape, array.shape, strict=True):
            wanted = dim if isinstance(dim, int) else sizes.setdefault(dim, size) if dim != ANY else size
            if wanted != size:
                raise self._bad_input(f"{spec}", f"shape {tuple(array.shape)}: {dim} must be {wanted}")
        if not np.can_cast(array.dtype, spec.dtype, "same_kind"):
            raise self._bad_input(f"{spec}", f"dtype {array.dtype}")
        return jnp.asarray(array, _device_dtype(spec.dtype)) if self.traceable else np.asarray(array, spec.dtype)

    def _bad_input(self, wanted: str, got: str) -> InvalidInputError:
        declared = "; ".join(map(str, self.inputs))
        return InvalidInputError(
            f"The model needs {wanted}", got=got, where=self.origin.path, fix=f"its inputs are {declared}"
        )

    def bind(self, **values: Any) -> Model:
        """The model with some inputs fixed to concrete values.

        A bound value is known while tracing, so it may decide shapes and branches (a sampling rate, say).

        Args:
          **values: input name -> array-like.
        Returns:
          A model with the remaining inputs.
        """
        unknown = set(values) - set(self.input_names)
        if unknown:
            raise self._bad_input("names of its own inputs to bind", f"inputs {sorted(unknown)}")
        fixed = {
            i: np.asarray(values[spec.name], spec.dtype) for i, spec in enumerate(self.inputs) if spec.name in values
        }
        frozen = tuple((i, value.dtype.str, value.shape, value.tobytes()) for i, value in fixed.items())
        return replace(
            self,
            apply=_with_fixed(self.apply, frozen, len(self.inputs)),
            inputs=tuple(spec for i, spec in enumerate(self.inputs) if i not in fixed),
            bound={**self.bound, **{self.inputs[i].name: value.tolist() for i, value in fixed.items()}},
        )

    def eager(self, *args: Any, **named: Any) -> Any:
        """Runs the model operator by operator on the values at hand, which may decide any shape or branch.

        Args, Returns, Raises: as for a call.
        """
        return self.apply(self.params, *self.arrange(args, named))

    def bounded(self, size: int | Mapping[str, int]) -> Model:
        """The model with a fixed number of rows for each operator that makes as many as the data say.

        NonZero, Compress, Unique and NonMaxSuppression can then be compiled, vmapped and so on. Rows beyond those that
        there are hold zeros in the outputs. What follows such an operator must work row by row; a model in which it
        does not is refused when it is traced.

        Args:
          size: rows, for each such operator or by the name of its first output.
        Returns:
          A model with two more outputs for each such operator, in order of the graph: `<name>.mask`, bool (size,), says
          which rows are real, and `<name>.count` how many there really are. Where it is above `size`, rows are missing.
        Raises:
          InvalidInputError: a name or size is wrong, or the model has no such operator.
        """
        names = self._data_dependent()
        sizes = dict.fromkeys(names, size) if isinstance(size, int) else dict(size)
        wrong = [n for n in sizes.values() if isinstance(n, bool) or not isinstance(n, int) or n < 1]
        if not names or set(sizes) != set(names) or wrong:
            raise InvalidInputError(
                "A size of 1 or more is given for each operator that makes as many rows as the data say",
                got=f"{size!r} for {', '.join(names) or 'a model without any'}",
                where=self.origin.path,
                fix=f"name {', '.join(names)}" if names else "call the model as it is",
            )
        beside = [
            spec
            for name in names
            for spec in (
                TensorSpec(f"{name}.mask", (sizes[name],), np.dtype(bool)),
                TensorSpec(f"{name}.count", (), np.dtype(np.int32)),
            )
        ]
        frozen = tuple((name, sizes[name]) for name in names)
        return replace(
            self, apply=_with_bounds(self.apply, frozen, len(self.outputs)), outputs=(*self.outputs, *beside)
        )

    def specialise(self, *args: Any, **named: Any) -> Model:
        """The model compiled for what an example decides: shapes, branches, and how many rows operators make.

        Args:
          *args, **named: an example, as for a call.
        Returns:
          A black box (no gradients, not to be traced), which raises `InvalidInputError` for inputs that decide anything
          otherwise than the example did.
        """
        names = self._data_dependent()
        with under(Example(frozenset(names))) as example:
            self.eager(*args, **named)
        return replace(self, apply=_guarded(self.apply, example, self.origin.path), traceable=False)

    def _data_dependent(self) -> tuple[str, ...]:
        if self.conversion is None or not self.traceable:
            return ()
        return tuple(data_dependent(self.conversion.folded, self.input_names))


@lru_cache(maxsize=256)
def _with_bounds(inner: Apply, sizes: tuple[tuple[str, int], ...], n_outputs: int) -> Apply:
    def apply(params: Params, *inputs: Any) -> Any:
        with under(Bounds(dict(sizes))) as bounds:
            outputs = inner(params, *inputs)
        found = [bounds.dimensions[name] for name, _ in sizes]
        beside = [part for dimension in found for part in (dimension.mask(), dimension.count)]
        return (*(outputs if n_outputs > 1 else (outputs,)), *beside)

    return apply


def _guarded(inner: Apply, example: Example, where: str) -> Apply:
    @jax.jit
    def compiled(params: Params, *inputs: Any) -> Any:
        with under(Bounds(example.sizes, example.decisions)) as bounds:
            return inner(params, *inputs), bounds.guards

    def apply(params: Params, *inputs: Any) -> Any:
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, inputs))):
            raise NotStaticError(
                "A specialised model is called on values, which it compares with its example's",
                got="traced inputs",
                where=where,
                fix="trace the model as it was, or in bounded form: model.bounded(size)",
            )
        arrays = tuple(x if isinstance(x, jax.Array) else np.asarray(x) for x in inputs)
        outputs, guards = compiled(*on_device((params, *arrays)))
        broken = [what for what, held in jax.device_get(guards).items() if not held]
        if broken:
            raise InvalidInputError(
                "A specialised model takes inputs that decide what its example did",
                got=f"otherwise: {'; '.join(broken)}",
                where=where,
                fix="call model.eager(...), specialise it on these inputs, or bound it: model.bounded(size)",
            )
        return jax.tree.map(np.asarray, outputs)

    return apply


@lru_cache(maxsize=256)  # models of one apply, bound alike, keep sharing one compilation
def _with_fixed(inner: Apply, frozen: tuple[tuple[int, str, tuple[int, ...], bytes], ...], n_inputs: int) -> Apply:
    fixed = {i: np.frombuffer(data, dtype).reshape(shape) for i, dtype, shape, data in frozen}

    def apply(params: Params, *inputs: Any) -> Any:
        rest = iter(inputs)
        return inner(params, *(fixed[i] if i in fixed else next(rest) for i in range(n_inputs)))

    return apply


def _device_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype JAX keeps values of `dtype` in: 64-bit ones become 32-bit unless x64 is on."""
    return jax.dtypes.canonicalize_dtype(dtype)
