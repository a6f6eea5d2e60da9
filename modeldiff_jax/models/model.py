"""What every later room sees of a model: a pure function, its parameters, its specs and where it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import jax
import numpy as np

from modeldiff_jax.errors import InvalidInputError, NotStaticError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.graph.bounded import Bounds, Example, data_dependent, evaluating_under
from modeldiff_jax.models.graph.ir import Graph
from modeldiff_jax.models.graph.strings import decoded
from modeldiff_jax.models.values import misfit
from modeldiff_jax.runtime import x64
from modeldiff_jax.runtime.compilation import Program
from modeldiff_jax.runtime.settings import on_device
from modeldiff_jax.types import ANY, Apply, Params, TensorSpec

_FEWEST_WEIGHTS = 64


@dataclass(frozen=True)
class Origin:
    """Where a model came from, and what identifies it.

    Attributes:
      path: the file, or a description of the object.
      format: `onnx`, `flax-linen`, `flax-nnx`, `jax`, `callable`.
      sha256: of the bytes of the file, as `sha256sum` prints it; for reports. Of the parameters where there is no file;
        empty for a callable.
      content_sha256: identity of the model, by which equal models are found and under which a catalogue keeps one.
        Models of equal identity compute the same function. It covers every byte that the model was made of, so two
        files of one graph whose external weights differ have two identities. It is empty for a callable, which equals
        no other model. Otherwise it is one of:

        - `sha256`, for a file without external data;
        - for a file with external data: the SHA-256 of UTF-8 lines joined by newlines: `modeldiff-external-data-1`,
          `sha256`, and `<sha256 of the range> <offset> <length> <location>` for each distinct range of a data file
          in which a tensor is stored, ordered by location, offset and length;
        - for a Flax module or a JAX function: the SHA-256 of the lines `modeldiff-program-1`, `sha256`, and the SHA-256
          of the program that JAX traces, so that it may differ between versions of JAX;
        - for a model with inputs fixed by `bind`: the SHA-256 of the lines `modeldiff-derived-1`, its identity before,
          and the fixed inputs.
    """

    path: str
    format: str
    sha256: str = ""
    content_sha256: str = ""

    def __post_init__(self) -> None:
        if not self.content_sha256:
            object.__setattr__(self, "content_sha256", self.sha256)

    def derived(self, change: object) -> Origin:
        """Returns the origin of a model made from this one by a change, which is described by its `repr`."""
        if not self.content_sha256:
            return self
        lines = "\n".join(["modeldiff-derived-1", self.content_sha256, repr(change)])
        return replace(self, content_sha256=hashlib.sha256(lines.encode()).hexdigest())


@dataclass(frozen=True)
class ModelSummary:
    """What results keep of a model: where it came from and its interface, without weights or code; can be pickled.

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
        if not self.traceable:
            return self.apply
        if any(spec.holds_strings for spec in self.inputs):  # which JAX has no type for
            return getattr(self.apply, "compiled", self.apply)
        return Program(self.apply)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs in declared order."""
        return tuple(spec.name for spec in self.inputs)

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the values of all weights, whatever their names and order: SHA-256 in hexadecimal.

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
        """Whether outputs can be differentiated by at least one input."""
        return self.traceable and any(np.issubdtype(spec.dtype, np.floating) for spec in self.inputs)

    @property
    def summary(self) -> ModelSummary:
        """What results keep of the model."""
        return ModelSummary(self.origin, self.inputs, self.outputs, dict(self.bound))

    def to_dict(self) -> dict[str, Any]:
        """Returns origin and specs as JSON-able data."""
        return self.summary.to_dict()

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Runs the model, compiled once per input shape.

        Args:
          *args: inputs in declared order, numpy or JAX arrays. **named: the others by name.
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
            found = function(self.params, *inputs)
        except InvalidInputError as error:
            uneven = self._uneven_sizes(inputs)
            if not uneven:
                raise
            raise InvalidInputError(
                error.rule, got=f"{error.got}; {uneven}", where=error.where, fix=error.fix
            ) from error
        return decoded(found) if self._gives_strings else found

    @cached_property
    def _gives_strings(self) -> bool:
        return any(spec.dtype.kind == "O" for spec in self.outputs)

    def _uneven_sizes(self, inputs: tuple[Any, ...]) -> str:
        """What to say of axes of one name that differ in size, which may be why a call fails."""
        found: dict[str, dict[int, str]] = {}
        for spec, value in zip(self.inputs, inputs, strict=True):
            for dim, size in zip(spec.shape, np.shape(value), strict=True):
                if isinstance(dim, str) and dim != ANY:
                    found.setdefault(dim, {}).setdefault(size, spec.name)
        return "; ".join(
            f"axes named `{dim}` are " + " and ".join(f"{size} in `{name}`" for size, name in sizes.items())
            for dim, sizes in found.items()
            if len(sizes) > 1
        )

    def arrange(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
        """Checks inputs against the specs and puts them into declared order, as arrays of the declared dtypes.

        Floats are rounded to the declared type. Give `apply` what comes of this: JAX cuts the numpy arrays of 64-bit
        types that `jax.jit` is called with to 32 bits before a function sees them.
        """
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
        arrays = [self._checked(spec, given[spec.name], sizes) for spec in self.inputs]
        if not self.traceable:
            return tuple(map(np.asarray, arrays))
        return tuple(array if array.dtype.kind == "O" else x64.as_array(array) for array in arrays)

    def _checked(self, spec: TensorSpec, value: Any, sizes: dict[str, int]) -> Any:
        """A value for an input, of the declared dtype; what is no JAX array becomes a numpy array."""
        array = value if isinstance(value, jax.Array) else np.asarray(value)
        if array.ndim != len(spec.shape):
            raise self._bad_input(f"{len(spec.shape)} axes for {spec}", f"shape {tuple(array.shape)}")
        for axis, (dim, size) in enumerate(zip(spec.shape, array.shape, strict=True)):
            held = isinstance(dim, str) and dim != ANY and self.conversion is None  # a file's names bind nobody
            wanted = dim if isinstance(dim, int) else sizes.setdefault(dim, size) if held else size
            if wanted != size:
                what = f"axis {axis}" if isinstance(dim, int) else dim
                raise self._bad_input(f"{spec}", f"shape {tuple(array.shape)}: {what} must be {wanted}")
        dtype = self._dtype_in_apply(spec)
        refusal = misfit(array, dtype)
        if refusal:
            raise self._bad_input(f"{spec}", refusal)
        if isinstance(array, jax.Array):
            return x64.as_array(array, dtype)
        with np.errstate(over="ignore"):
            return array.astype(dtype, copy=False)

    def _dtype_in_apply(self, spec: TensorSpec) -> np.dtype[Any]:
        """The dtype in which `apply` takes an input: a file's as declared, another function's as JAX keeps it."""
        return jax.dtypes.canonicalize_dtype(spec.dtype) if self.traceable and self.conversion is None else spec.dtype

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
        Raises:
          InvalidInputError: no such input, or a value that a call would refuse.
        """
        unknown = set(values) - set(self.input_names)
        if unknown:
            raise self._bad_input("names of its own inputs to bind", f"inputs {sorted(unknown)}")
        sizes: dict[str, int] = {}
        fixed = {
            i: np.asarray(self._checked(spec, values[spec.name], sizes))
            for i, spec in enumerate(self.inputs)
            if spec.name in values
        }
        frozen = tuple((i, _Frozen.of(value)) for i, value in fixed.items())
        return replace(
            self,
            origin=self.origin.derived([(i, v.dtype.name, v.shape, v.data) for i, v in frozen]),
            apply=_with_fixed(self.apply, frozen, len(self.inputs)),
            inputs=tuple(spec for i, spec in enumerate(self.inputs) if i not in fixed),
            bound={**self.bound, **{self.inputs[i].name: _shown(value) for i, value in fixed.items()}},
        )

    def eager(self, *args: Any, **named: Any) -> Any:
        """Runs the model operator by operator on the values at hand, which may decide any shape or branch.

        Args, Returns, Raises: as for a call.
        """
        return self._outputs(self.apply, self.arrange(args, named))

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
        return replace(self, apply=_guarded(self.apply, example, self.origin.path), traceable=False)

    def _data_dependent(self) -> tuple[str, ...]:
        if self.conversion is None or not self.traceable:
            return ()
        return tuple(data_dependent(self.conversion.folded, self.input_names))


@dataclass(frozen=True, slots=True)
class _Frozen:
    """An array as a key."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    data: bytes | tuple[str, ...]

    @classmethod
    def of(cls, array: np.ndarray) -> _Frozen:
        held = tuple(array.ravel().tolist()) if array.dtype == object else array.tobytes()
        return cls(array.shape, array.dtype, held)

    def array(self) -> np.ndarray:
        held = np.frombuffer(self.data, self.dtype) if isinstance(self.data, bytes) else np.array(self.data, object)
        return held.reshape(self.shape)


_SHOWN_ELEMENTS = 16


def _shown(value: np.ndarray) -> Any:
    """A bound value as plain data; of a long one the shape."""
    return value.tolist() if value.size <= _SHOWN_ELEMENTS else f"{value.dtype.name}{list(value.shape)}"


@lru_cache(maxsize=256)
def _with_bounds(inner: Apply, sizes: tuple[tuple[str, int], ...], n_outputs: int) -> Apply:
    def apply(params: Params, *inputs: Any) -> Any:
        with evaluating_under(Bounds(dict(sizes))) as bounds:
            outputs = inner(params, *inputs)
        found = [bounds.dimensions[name] for name, _ in sizes]
        beside = [part for dimension in found for part in (dimension.mask(), dimension.count)]
        return (*(outputs if n_outputs > 1 else (outputs,)), *beside)

    return apply


def _guarded(inner: Apply, example: Example, where: str) -> Apply:
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
def _with_fixed(inner: Apply, frozen: tuple[tuple[int, _Frozen], ...], n_inputs: int) -> Apply:
    fixed = {i: value.array() for i, value in frozen}

    def apply(params: Params, *inputs: Any) -> Any:
        rest = iter(inputs)
        return inner(params, *(fixed[i] if i in fixed else next(rest) for i in range(n_inputs)))

    return apply
