"""Finds concrete sizes for a model's dynamic dimensions: guesses by role, accepted if the model traces with them.

Files name their dynamic sizes as they like, or not at all, and do not state which sizes work. So each dynamic dimension
gets a short list of usual sizes by the role and form of its input (image, sound, tokens, recurrent state), and the
first combination that `jax.eval_shape` accepts is used. Nothing is computed for a trial.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, TypeAlias

import jax
import numpy as np

from modeldiff_jax.errors import InvalidInputError, ModelDiffError, NotStaticError, UnsupportedModelError
from modeldiff_jax.limits import DEFAULT
from modeldiff_jax.models.inputs.roles import SETTINGS, Role, is_state, main_input, role
from modeldiff_jax.models.model import Model
from modeldiff_jax.types import ANY, Dim, Params, TensorSpec

Sizes: TypeAlias = Mapping[str, int | tuple[int, ...]]
"""Input name -> its whole shape, or the name of a dynamic dimension -> its size."""

_SQUARES = (96, 64, 128, 160, 192, 224, 256, 288, 299, 320, 384, 416, 448, 512, 640, 32, 28, 16)
# Work grows with the area and a probe gains nothing by it, so small usual sizes come first; oblong ones are for text
_IMAGES = ((96, 96), (48, 192), (48, 320), (32, 128), (32, 320), *((n, n) for n in _SQUARES[1:]))
_SOUND = (576, 512, 256, 16000, 1536, 1024, 2048, 4096, 8000, 32000, 48000, 160000)
_FRAMES = (64, 100, 128, 96, 256, 32, 16, 3000, 1)
_TOKENS = (64, 128, 32, 16, 256, 512, 1)
_TRIALS = 60

# Identifies a dynamic size: its name, or the input and axis of a nameless one
_Key: TypeAlias = str | tuple[str, int]
_Choice: TypeAlias = tuple[tuple[_Key, ...], tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class Resolved:
    """A model and input shapes that it runs on.

    Attributes:
      model: the model, with `bound` inputs fixed.
      shapes: shape of each remaining input.
      bound: inputs fixed because they decide branches, with their values.
      batch_axes: for each remaining input the axis of dynamic size that is taken for the batch, or `None`. It is a
        guess from names and positions: the examples along it may depend on one another (in a sequence, for example).
        `jax.vmap` over the model at batch 1 is right for every model.
    """

    model: Model
    shapes: dict[str, tuple[int, ...]]
    bound: dict[str, np.ndarray]
    batch_axes: dict[str, int | None]

    def structs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Returns shape and dtype of each input in declared order, as `jax.eval_shape` and `jax.jit(...).lower` take.

        Types of 64 bits are replaced by JAX's 32-bit ones; `apply` widens them again.

        Raises:
          UnsupportedModelError: an input holds strings or sequences, which JAX does not trace.
        """
        return tuple(_struct(self.model, spec, self.shapes) for spec in self.model.inputs)


def resolve(model: Model, batch: int = 1, sizes: Sizes | None = None) -> Resolved:
    """Finds a concrete shape for every input of a model.

    Args:
      model: any model. A black box is never called: it gets the most usual sizes.
      batch: size of the batch axis if it is dynamic.
      sizes: known sizes: input name -> shape, or dynamic dimension's name -> size.
    Raises:
      InvalidInputError: no usual combination of sizes works; the message has the error of the first one.
      NotStaticError: an input that decides shapes or branches must be bound first.
      LimitExceededError: an input is larger than `made_elements`.
    """
    fixed = {
        spec.name: np.full((1,) * len(spec.shape), SETTINGS[spec.name.lower()], spec.dtype)
        for spec in model.inputs
        if role(spec) is Role.SETTING
    }
    bound = model.bind(**fixed) if fixed else model
    given = _check_sizes(bound, sizes or {})
    batch_keys = _batch_keys(bound)
    known: dict[_Key, int] = {**dict.fromkeys(batch_keys, batch), **given}
    choices = _choices(bound, known, batch)

    limits = model.conversion.limits if model.conversion else DEFAULT
    first: Exception | None = None
    for combination in islice(_combinations(choices), _TRIALS):
        values = {**known, **combination}
        shapes = {
            spec.name: tuple(d if isinstance(d, int) else values[_key(spec, i)] for i, d in enumerate(spec.shape))
            for spec in bound.inputs
        }
        refusal = _refusal(bound, shapes)
        if refusal is None:
            for name, shape in shapes.items():
                limits.check("made_elements", math.prod(shape), where=f"{model.origin.path}, input `{name}`")
            axes = {spec.name: _batch_axis(spec, shapes[spec.name], batch_keys, combination) for spec in bound.inputs}
            return Resolved(bound, shapes, fixed, axes)
        first = first or refusal
        if isinstance(refusal, NotStaticError) or not combination:  # no size will help
            raise refusal
    raise InvalidInputError(
        "Sizes must be found for the model's dynamic dimensions",
        got=f"none of the usual ones works; the first trial said: {first}",
        where=model.origin.path,
        fix=f"pass sizes for {'; '.join(map(str, bound.inputs))}",
    ) from first


def _key(spec: TensorSpec, axis: int) -> _Key:
    dim = spec.shape[axis]
    return (spec.name, axis) if dim == ANY or isinstance(dim, int) else dim


def _check_sizes(model: Model, sizes: Sizes) -> dict[_Key, int]:
    specs = {spec.name: spec for spec in model.inputs}
    dims = {d for spec in model.inputs for d in spec.shape if isinstance(d, str) and d != ANY}
    known: dict[_Key, int] = {}
    for name, size in sizes.items():
        if isinstance(size, int) and name in dims:
            known[name] = size
        elif not isinstance(size, int) and name in specs and _fits(specs[name].shape, size):
            known.update((_key(specs[name], i), n) for i, n in enumerate(size))
        else:
            raise InvalidInputError(
                "A size names an input with its whole shape, or a dynamic dimension",
                got=f"{name} = {size}",
                where=model.origin.path,
                fix=f"the inputs are {'; '.join(map(str, model.inputs))}",
            )
    return known


def _fits(shape: tuple[Dim, ...], size: tuple[int, ...]) -> bool:
    return len(shape) == len(size) and all(isinstance(d, str) or d == n for d, n in zip(shape, size, strict=True))


def _batch_keys(model: Model) -> frozenset[_Key]:
    """Returns the dynamic sizes that are the batch: axis 0 of each input, and other axes of the same name."""
    if not model.inputs:
        return frozenset()
    main = main_input(model)
    lone = len(main.shape) == 1 and "batch" not in str(main.shape[0]).lower()  # a single axis is a length, not a batch
    return frozenset(
        _key(spec, 0)
        for spec in model.inputs
        if spec.shape and isinstance(spec.shape[0], str) and not (lone and spec is main)
    )


def _batch_axis(
    spec: TensorSpec, shape: tuple[int, ...], keys: frozenset[_Key], chosen: Mapping[_Key, int]
) -> int | None:
    for axis, dim in enumerate(spec.shape):
        key = _key(spec, axis)
        # the first choice for a nameless size of a state is the batch size, and states have no other chosen sizes
        if isinstance(dim, str) and (key in keys or (is_state(spec) and key in chosen)):
            return axis
    return None


def _choices(model: Model, known: Mapping[_Key, int], batch: int) -> list[_Choice]:
    """Returns the values to try for each unknown size, or group of them, in order of preference."""
    choices: dict[tuple[_Key, ...], tuple[tuple[int, ...], ...]] = {}
    assigned: set[_Key] = set(known)
    for spec in sorted(model.inputs, key=is_state):
        axes = [i for i, dim in enumerate(spec.shape) if isinstance(dim, str) and _key(spec, i) not in assigned]
        keys = tuple(dict.fromkeys(_key(spec, i) for i in axes))
        assigned.update(keys)
        if len(keys) == 2 and len(spec.shape) in (3, 4) and _is_image(spec, axes):
            choices[keys] = _IMAGES
            continue
        if axes == [1, 2, 3] and len(keys) == 3 and len(spec.shape) == 4:  # channels are dynamic too: first or last
            choices[keys] = tuple(shape for h, w in _IMAGES for shape in ((3, h, w), (h, w, 3), (1, h, w), (h, w, 1)))
            continue
        for key, axis in zip(keys, axes, strict=False):
            choices[(key,)] = tuple((n,) for n in _usual(spec, axis, batch))
    return list(choices.items())


def _is_image(spec: TensorSpec, axes: list[int]) -> bool:
    rest = [dim for i, dim in enumerate(spec.shape) if i not in axes]
    return axes[1] == axes[0] + 1 and (len(spec.shape) == 4 or rest[0] in (1, 3, 4))


def _usual(spec: TensorSpec, axis: int, batch: int) -> tuple[int, ...]:
    fixed = [dim for i, dim in enumerate(spec.shape) if isinstance(dim, int) and i != axis]
    if role(spec) is Role.CACHE:  # initially there are no keys and values
        return (0, 1, *_TOKENS)
    if is_state(spec):
        return tuple(dict.fromkeys((batch, 1, *_FRAMES)))
    if spec.dtype.kind in "iub":
        return _TOKENS
    if len(spec.shape) == 4:
        lines = tuple(w for h, w in _IMAGES if h in fixed)
        other = spec.shape[4 - axis]  # channels are first or last
        channels = (3, 1) if axis in (1, 3) and len(fixed) >= 2 and other not in (1, 3, 4) else ()
        return tuple(dict.fromkeys((*channels, *lines, *_SQUARES)))
    if len(spec.shape) <= 2 or all(n == 1 for n in fixed):
        return _SOUND + _FRAMES
    return _FRAMES + _SOUND


def _combinations(choices: list[_Choice]) -> Iterator[dict[_Key, int]]:
    for combination in product(*(candidates for _, candidates in choices)):
        yield {
            key: size
            for (keys, _), sizes in zip(choices, combination, strict=True)
            for key, size in zip(keys, sizes, strict=True)
        }


def _refusal(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> Exception | None:
    """Returns the error by which the model refuses these shapes; `None` if it runs."""
    if not model.traceable:
        return None
    # strings cannot be traced: all inputs of strings hold one that can also be read as a number
    strings = {s.name: np.full(shapes[s.name], "0", object) for s in model.inputs if s.holds_strings}
    structs = [_struct(model, spec, shapes) for spec in model.inputs if spec.name not in strings]

    def with_strings(params: Params, *numbers: Any) -> Any:
        numeric = iter(numbers)
        return model.apply(params, *(strings[n] if n in strings else next(numeric) for n in model.input_names))

    try:  # JAX caches the trace of `apply` itself, so that compiling it does not trace it again
        outputs = jax.eval_shape(with_strings if strings else model.apply, model.params, *structs)
    except ModelDiffError as error:
        return error
    except (TypeError, ValueError, IndexError, ZeroDivisionError, AssertionError) as error:  # raised by users' code
        return InvalidInputError("A model must accept its inputs", got=str(error)[:300], where=model.origin.path)
    empty = [str(leaf.shape) for leaf in jax.tree.leaves(outputs) if 0 in leaf.shape]
    if empty:
        return InvalidInputError("A model must give outputs", got=f"outputs of shape {', '.join(empty)}")
    return None


def _struct(model: Model, spec: TensorSpec, shapes: Mapping[str, tuple[int, ...]]) -> jax.ShapeDtypeStruct:
    if spec.dtype.kind == "O":
        raise UnsupportedModelError(
            "Inputs to trace must be numbers",
            got=f"{spec}",
            where=model.origin.path,
            fix="fix it: model.bind(name=value), or md.InputHint(fixed={name: value})",
        )
    return jax.ShapeDtypeStruct(shapes[spec.name], jax.dtypes.canonicalize_dtype(spec.dtype))
