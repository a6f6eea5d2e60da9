"""A model: a pure function, its parameters, its specs and where it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.call_modes import Frozen, guarded, with_bounds, with_fixed
from modeldiff_jax.models.graph.bounded import Example, data_dependent, evaluating_under
from modeldiff_jax.models.graph.ir import Graph
from modeldiff_jax.models.graph.strings import decoded
from modeldiff_jax.models.values import misfit
from modeldiff_jax.runtime import x64
from modeldiff_jax.runtime.compilation import Program
from modeldiff_jax.types import ANY, Apply, Params, TensorSpec

_FEWEST_WEIGHTS = 64


@dataclass(frozen=True)
class Origin:
    """Where a model came from, and the hashes that identify it.

    Attributes:
      path: the file, or a description of the object.
      format: `onnx`, `flax-linen`, `flax-nnx`, `jax`, `callable`.
      sha256: of the bytes of the file, as `sha256sum` prints it; for reports. Of the parameters if there is no file;
        empty for a callable.
      content_sha256: identity of the model: models of equal identity compute the same function, and a catalogue stores
        them once. It covers every byte that the model was made of, so two files of one graph whose external weights
        differ have two identities. It is empty for a callable, which equals no other model. Otherwise it is one of:

        - `sha256`, for a file without external data;
        - for a file with external data: the SHA-256 of UTF-8 lines joined by newlines: `modeldiff-external-data-1`,
          `sha256`, and `<sha256 of the range> <offset> <length> <location>` for each distinct range of a data file
          in which a tensor is stored, ordered by location, offset and length;
        - for a Flax module or a JAX function: the SHA-256 of the lines `modeldiff-program-1`, `sha256`, and the SHA-256
          of the program that JAX traces, which may differ between versions of JAX;
        - for a model with inputs fixed by `bind`: the SHA-256 of the lines `modeldiff-derived-1`, the identity of the
          model before, and the fixed inputs.
    """

    path: str
    format: str
    sha256: str = ""
    content_sha256: str = ""

    def __post_init__(self) -> None:
        if not self.content_sha256:
            object.__setattr__(self, "content_sha256", self.sha256)

    def derived(self, change: object) -> Origin:
        """Returns the origin of a model made from this one by a change, which enters the identity as its `repr`."""
        if not self.content_sha256:
            return self
        lines = "\n".join(["modeldiff-derived-1", self.content_sha256, repr(change)])
        return replace(self, content_sha256=hashlib.sha256(lines.encode()).hexdigest())


@dataclass(frozen=True)
class ModelSummary:
    """The part of a model that results keep: origin and interface, without weights or code; can be pickled.

    Attributes:
      origin: file or object it was made from.
      inputs, outputs: specs in declared order.
      bound: inputs fixed by `Model.bind`, with their values (long ones: their shapes).
    """

    origin: Origin
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    bound: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns origin and specs as JSON-able data."""
        return {
            "path": self.origin.path,
            "format": self.origin.format,
            "sha256": self.origin.sha256,
            "inputs": [str(spec) for spec in self.inputs],
            "outputs": [str(spec) for spec in self.outputs],
            "bound": dict(self.bound),
        }


@dataclass(frozen=True)
class Conversion:
    """The graphs of a model that came from a file: as read, and as run.

    Attributes:
      source: the graph in the file, without its constants.
      folded: the graph that runs, with the constants that stay part of the program.
      limits: limits it was read under.
    """

    source: Graph
    folded: Graph
    limits: Limits


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model as a pure function.

    Attributes:
      apply: `apply(params, *inputs) -> outputs`; jit, vmap, grad and export work on it when `traceable`.
      params: pytree of arrays. Those of a file have the file's names and values; filters of convolutions and transposed
        matrices are kept in the layout that kernels read, (taps..., inputs, outputs).
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
        if not self.traceable:
            return self.apply
        if any(spec.holds_strings for spec in self.inputs):  # a type that JAX does not have
            return getattr(self.apply, "compiled", self.apply)
        return Program(self.apply)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs in declared order."""
        return tuple(spec.name for spec in self.inputs)

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the values of all weights in hexadecimal, independent of their names and order.

        Empty for a model of fewer than 64 weights, such as a black box: equal hashes would then mean little.
        """
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(self.params)]
        if sum(leaf.size for leaf in leaves) < _FEWEST_WEIGHTS:
            return ""
        hashes = sorted(
            hashlib.sha256(f"{leaf.dtype.name} {leaf.shape} ".encode() + np.ascontiguousarray(leaf).data).digest()
            for leaf in leaves
        )
        return hashlib.sha256(b"".join(hashes)).hexdigest()

    @property
    def has_gradients(self) -> bool:
        """Returns whether outputs can be differentiated by at least one input."""
        return self.traceable and any(np.issubdtype(spec.dtype, np.floating) for spec in self.inputs)

    @property
    def summary(self) -> ModelSummary:
        """The part of the model that results keep."""
        return ModelSummary(self.origin, self.inputs, self.outputs, dict(self.bound))

    def to_dict(self) -> dict[str, Any]:
        """Returns origin and specs as JSON-able data."""
        return self.summary.to_dict()

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Runs the model, compiled once per input shape.

        Args:
          *args: inputs in declared order, numpy or JAX arrays. **named: other inputs by name.
        Returns:
          One array, or a tuple of arrays in declared order, of the declared dtypes: JAX arrays, and numpy arrays of
          objects for strings.
        Raises:
          InvalidInputError: an input is missing, unknown, given twice, or of a wrong rank, size or type, or holds an
            integer that its type does not.
        """
        return self._outputs(self._compiled, self.arrange(args, named))

    def _outputs(self, function: Callable[..., Any], inputs: tuple[Any, ...]) -> Any:
        try:
            outputs = function(self.params, *inputs)
        except InvalidInputError as error:
            uneven = self._uneven_sizes(inputs)
            if not uneven:
                raise
            raise InvalidInputError(
                error.rule, got=f"{error.got}; {uneven}", where=error.where, fix=error.fix
            ) from error
        return decoded(outputs) if self._gives_strings else outputs

    @cached_property
    def _gives_strings(self) -> bool:
        return any(spec.dtype.kind == "O" for spec in self.outputs)

    def _uneven_sizes(self, inputs: tuple[Any, ...]) -> str:
        """Describes axes of one name that differ in size, a likely reason why a call fails; empty if there are none."""
        inputs_by_size: dict[str, dict[int, str]] = {}
        for spec, value in zip(self.inputs, inputs, strict=True):
            for dim, size in zip(spec.shape, np.shape(value), strict=True):
                if isinstance(dim, str) and dim != ANY:
                    inputs_by_size.setdefault(dim, {}).setdefault(size, spec.name)
        return "; ".join(
            f"axes named `{dim}` are " + " and ".join(f"{size} in `{name}`" for size, name in sizes.items())
            for dim, sizes in inputs_by_size.items()
            if len(sizes) > 1
        )

    def arrange(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
        """Checks inputs against the specs and returns them in declared order, as arrays of the declared dtypes.

        Floats are rounded to the declared type. Pass the result to `apply` rather than numpy arrays of 64-bit types,
        which `jax.jit` cuts to 32 bits before it calls a function.
        """
        names = self.input_names
        if len(args) > len(names):
            raise self._bad_input("at most as many inputs as declared", f"{len(args)} positional inputs")
        given = dict(zip(names, args, strict=False))
        repeated, unknown = set(given) & set(named), set(named) - set(names)
        if repeated or unknown:
            raise self._bad_input("each input once and by its name", f"inputs {sorted(repeated | unknown)}")
        given.update(named)
        missing = [name for name in names if name not in given]
        if missing:
            raise self._bad_input("every input", f"no value for {', '.join(missing)}")
        sizes: dict[str, int] = {}
        arrays = [self._checked(spec, given[spec.name], sizes) for spec in self.inputs]
        if not self.traceable:
            return tuple(map(np.asarray, arrays))
        return tuple(array if array.dtype.kind == "O" else x64.as_array(array) for array in arrays)

    def _checked(self, spec: TensorSpec, value: Any, sizes: dict[str, int]) -> Any:
        """Returns a value for an input in the declared dtype: JAX arrays as such, anything else as a numpy array."""
        array = value if isinstance(value, jax.Array) else np.asarray(value)
        if array.ndim != len(spec.shape):
            raise self._bad_input(f"{len(spec.shape)} axes for {spec}", f"shape {tuple(array.shape)}")
        for axis, (dim, size) in enumerate(zip(spec.shape, array.shape, strict=True)):
            # equal names in a file do not mean equal sizes: exporters reuse them
            must_agree = isinstance(dim, str) and dim != ANY and self.conversion is None
            wanted = dim if isinstance(dim, int) else sizes.setdefault(dim, size) if must_agree else size
            if wanted != size:
                label = f"axis {axis}" if isinstance(dim, int) else dim
                raise self._bad_input(f"{spec}", f"shape {tuple(array.shape)}: {label} must be {wanted}")
        dtype = self._dtype_in_apply(spec)
        refusal = misfit(array, dtype)
        if refusal:
            raise self._bad_input(f"{spec}", refusal)
        if isinstance(array, jax.Array):
            return x64.as_array(array, dtype)
        with np.errstate(over="ignore"):
            return array.astype(dtype, copy=False)

    def _dtype_in_apply(self, spec: TensorSpec) -> np.dtype[Any]:
        """Returns the dtype in which `apply` takes an input: as declared by a file, else as JAX canonicalises it."""
        return jax.dtypes.canonicalize_dtype(spec.dtype) if self.traceable and self.conversion is None else spec.dtype

    def _bad_input(self, wanted: str, got: str) -> InvalidInputError:
        declared = "; ".join(map(str, self.inputs))
        return InvalidInputError(
            f"The model needs {wanted}", got=got, where=self.origin.path, fix=f"its inputs are {declared}"
        )

    def bind(self, **values: Any) -> Model:
        """Returns the model with some inputs fixed to concrete values.

        A bound value is known while tracing, so it may decide shapes and branches (a sampling rate, for example).

        Args:
          **values: input name -> array-like.
        Returns:
          A model with the remaining inputs.
        Raises:
          InvalidInputError: no such input, or a value that a call would refuse.
        """
        unknown = set(values) - set(self.input_names)
        if unknown:
            raise self._bad_input("names of its inputs to bind", f"inputs {sorted(unknown)}")
        sizes: dict[str, int] = {}
        fixed = {
            i: np.asarray(self._checked(spec, values[spec.name], sizes))
            for i, spec in enumerate(self.inputs)
            if spec.name in values
        }
        frozen = tuple((i, Frozen.from_array(value)) for i, value in fixed.items())
        return replace(
            self,
            origin=self.origin.derived([(i, v.dtype.name, v.shape, v.data) for i, v in frozen]),
            apply=with_fixed(self.apply, frozen, len(self.inputs)),
            inputs=tuple(spec for i, spec in enumerate(self.inputs) if i not in fixed),
            bound={**self.bound, **{self.inputs[i].name: _shown(value) for i, value in fixed.items()}},
        )

    def eager(self, *args: Any, **named: Any) -> Any:
        """Runs the model operator by operator on concrete values, which may decide any shape or branch.

        Args, Returns, Raises: as for a call.
        """
        return self._outputs(self.apply, self.arrange(args, named))

    def bounded(self, size: int | Mapping[str, int]) -> Model:
        """Returns the model with a fixed number of rows for each operator whose number of rows depends on data.

        NonZero, Compress, Unique and NonMaxSuppression can then be compiled, vmapped and so on. In the outputs, rows
        beyond the real ones hold zeros. Operators that follow such a one must work row by row; a model with others is
        refused when it is traced.

        Args:
          size: number of rows, for each of these operators or by the name of its first output.
        Returns:
          A model with two more outputs for each of these operators, in order of the graph: `<name>.mask`, bool (size,),
          marks the real rows, and `<name>.count` is the number of real rows; if it is above `size`, rows are missing.
        Raises:
          InvalidInputError: a name or size is wrong, or the model has no such operator.
        """
        names = self._data_dependent()
        sizes = dict.fromkeys(names, size) if isinstance(size, int) else dict(size)
        wrong = [n for n in sizes.values() if isinstance(n, bool) or not isinstance(n, int) or n < 1]
        if not names or set(sizes) != set(names) or wrong:
            raise InvalidInputError(
                "A size of 1 or more is given for each operator whose number of rows depends on data",
                got=f"{size!r} for {', '.join(names) or 'a model without any'}",
                where=self.origin.path,
                fix=f"name {', '.join(names)}" if names else "call the model as it is",
            )
        added = [
            spec
            for name in names
            for spec in (
                TensorSpec(f"{name}.mask", (sizes[name],), np.dtype(bool)),
                TensorSpec(f"{name}.count", (), np.dtype(np.int32)),
            )
        ]
        frozen = tuple((name, sizes[name]) for name in names)
        return replace(self, apply=with_bounds(self.apply, frozen, len(self.outputs)), outputs=(*self.outputs, *added))

    def specialise(self, *args: Any, **named: Any) -> Model:
        """Returns the model compiled for the shapes, branches and numbers of rows that an example decides.

        Args:
          *args, **named: an example, as for a call.
        Returns:
          A black box (no gradients, not to be traced), which raises `InvalidInputError` for inputs that decide any of
          these differently from the example.
        Raises:
          InvalidInputError: the example does not fit, or an input holds strings.
        """
        strings = [str(spec) for spec in self.inputs if spec.holds_strings]
        if strings:
            raise InvalidInputError(
                "A specialised model is compiled, and its inputs are numbers",
                got=", ".join(strings),
                where=self.origin.path,
                fix="fix them first: model.bind(name=value)",
            )
        names = self._data_dependent()
        with evaluating_under(Example(frozenset(names))) as example:
            self.eager(*args, **named)
        return replace(self, apply=guarded(self.apply, example, self.origin.path), traceable=False)

    def _data_dependent(self) -> tuple[str, ...]:
        if self.conversion is None or not self.traceable:
            return ()
        return tuple(data_dependent(self.conversion.folded, self.input_names))


_SHOWN_ELEMENTS = 16


def _shown(value: np.ndarray) -> Any:
    """Returns a bound value as plain data, or the shape of a long one."""
    return value.tolist() if value.size <= _SHOWN_ELEMENTS else f"{value.dtype.name}{list(value.shape)}"
