"""What kind of input a model takes, in a form models can share: the space its probes live in.

A probe space is independent of layout, batch and native value range, so one probe set serves models that differ in all
of these. `probed_input` holds what ties a model to its space.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, get_args
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError, NotAdaptableError
from modeldiff_jax.models.inputs.examples import vocabulary
from modeldiff_jax.models.inputs.sizes import Resolved, is_state, resolve
from modeldiff_jax.models.model import Model
from modeldiff_jax.types import TensorSpec

Kind: TypeAlias = Literal["image", "signal", "tokens", "generic"]

VOCABULARY = 256
"""Tokens a model is probed with unless told otherwise: bytes, which every larger vocabulary contains."""
_MIN_SIDE, _MIN_SAMPLES = 8, 128
_CHANNELS = (3, 1, 4)


@dataclass(frozen=True)
class ProbeSpace:
    """The space probes live in, without batch, layout or native range.

    Attributes:
      kind: `image` (H, W, C) with C = 1 grey, 3 RGB or 4 RGBA; `signal` (T,); `tokens` (L,) integers; `generic` any.
      shape: of one probe.
      dtype: `int32` for tokens, else `float32`.
      low, high: smallest and largest value, inclusive: [0, 1] images, [-1, 1] signals, [0, vocabulary - 1] tokens.
    """

    kind: Kind
    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float

    def __post_init__(self) -> None:
        ranks = {"image": 3, "signal": 1, "tokens": 1}
        sound = (
            self.kind in get_args(Kind)
            and len(self.shape) == ranks.get(self.kind, len(self.shape))
            and all(isinstance(n, int) and n > 0 for n in self.shape)
            and (self.kind != "image" or self.shape[2] in _CHANNELS)
            and self.dtype == ("int32" if self.kind == "tokens" else "float32")
            and math.isfinite(self.low)
            and math.isfinite(self.high)
            and self.low < self.high
        )
        if not sound:
            raise InvalidInputError(
                "A probe space is an image (H, W, 1, 3 or 4), a signal (T,), tokens (L,) or generic, with low < high",
                got=str(asdict(self)),
                where="ProbeSpace",
            )

    @property
    def size(self) -> int:
        """Values in one probe."""
        return math.prod(self.shape)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {**asdict(self), "shape": list(self.shape), "low": float(self.low), "high": float(self.high)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProbeSpace:
        """Inverse of `to_dict`.

        Raises:
          InvalidInputError: fields are missing, unknown or unsound.
        """
        try:
            low, high = float(data["low"]), float(data["high"])
            return cls(**{**data, "shape": tuple(data["shape"]), "low": low, "high": high})
        except (KeyError, TypeError, ValueError) as error:
            rule = "A probe space has kind, shape, dtype, low and high"
            raise InvalidInputError(rule, got=str(data)[:200]) from error

    def __str__(self) -> str:
        sizes = "x".join(map(str, self.shape)) or "scalar"
        return f"{self.kind} {sizes} in [{self.low:g}, {self.high:g}]"


def image_space(height: int, width: int, channels: int = 3) -> ProbeSpace:
    """Images with values in [0, 1]."""
    return ProbeSpace("image", (height, width, channels), "float32", 0.0, 1.0)


def signal_space(samples: int) -> ProbeSpace:
    """One-dimensional signals with values in [-1, 1]."""
    return ProbeSpace("signal", (samples,), "float32", -1.0, 1.0)


def token_space(length: int, vocabulary: int = VOCABULARY) -> ProbeSpace:
    """Integer sequences with values in [0, vocabulary - 1]."""
    return ProbeSpace("tokens", (length,), "int32", 0.0, float(vocabulary - 1))


def generic_space(shape: tuple[int, ...], low: float = -1.0, high: float = 1.0) -> ProbeSpace:
    """Float arrays of no known kind."""
    return ProbeSpace("generic", shape, "float32", low, high)


@dataclass(frozen=True, eq=False)
class InputHint:
    """What a caller knows of a model's input that its file does not say.

    Attributes:
      name: the input to probe.
      kind: its kind.
      layout: its axes in order, as letters: N batch, H, W, C for images (`NCHW`, `NHWC`, `CHW`, `NHW`), N, T, C for
        signals (`NT`, `NTC`, `NCT`, `T`).
      value_range: smallest and largest value it takes: (0, 255) for an image model that scales by itself,
        (0, vocabulary - 1) for tokens.
      fixed: values of other inputs.
      sizes: input name -> shape, or name of a dynamic size -> its value.
    """

    name: str | None = None
    kind: Kind | None = None
    layout: str | None = None
    value_range: tuple[float, float] | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ProbedInput:
    """A model at concrete sizes, and which of its inputs is probed, how.

    Attributes:
      model: with inputs that decide shapes or branches bound.
      structs: shape and device dtype of each input in declared order.
      index: of the probed input.
      shape, dtype: of the probed input, batch axis included.
      layout: its axes as letters; for tokens and generic inputs `N` and `*` for the rest, or `*` alone.
      low, high: its native value range.
      space: the model's natural probe space.
      others: values of the other inputs by name, at the batch size in `shape`.
      batch_axes: for each input the axis whose size follows the batch, or `None`.
      notes: what was fixed and why, for people.
    """

    model: Model
    structs: tuple[jax.ShapeDtypeStruct, ...]
    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    layout: str
    low: float
    high: float
    space: ProbeSpace
    others: Mapping[str, np.ndarray]
    batch_axes: Mapping[str, int | None]
    notes: tuple[str, ...]


def space_of(model: Model, hint: InputHint | None = None) -> ProbeSpace:
    """The natural probe space of a model, read from its probed input.

    Args:
      model: any model; dynamic sizes get usual values.
      hint: what the model does not say of itself.
    Raises:
      NotAdaptableError: no input can be probed, or the hint does not fit.
    """
    return probed_input(model, hint).space


def probed_input(model: Model, hint: InputHint | None = None) -> ProbedInput:
    """Which input of a model is probed, at which sizes, and what the other inputs are given.

    Args, Raises: as `space_of`.
    """
    hint = hint or InputHint()
    unknown = {*hint.fixed, *([hint.name] if hint.name else [])} - set(model.input_names)
    if unknown:
        raise _bad_hint(model, "names of the model's own inputs", f"inputs {sorted(unknown)}")
    resolved = _resolve(model, hint)
    specs = resolved.model.inputs
    index = _choose(resolved, hint)
    shape, dtype = tuple(resolved.shapes[specs[index].name]), specs[index].dtype
    kind, layout = _kind_and_layout(resolved, index, hint)
    low, high, space = _range_and_space(resolved.model, specs[index], kind, layout, shape, hint)
    others, notes = {}, [f"input `{name}` fixed to {_brief(value)}" for name, value in resolved.bound.items()]
    for i, spec in enumerate(specs):
        if i != index:
            others[spec.name], note = _other_input(spec, resolved.shapes[spec.name], hint)
            notes.append(note)
    axes = resolved.batch_axes
    return ProbedInput(
        resolved.model, resolved.structs(), index, shape, dtype, layout, low, high, space, others, axes, tuple(notes)
    )


_Found: TypeAlias = tuple[dict[str, tuple[int, ...]], dict[str, np.ndarray], dict[str, int | None]]
_sizes_found: WeakKeyDictionary[Model, _Found] = WeakKeyDictionary()


def _resolve(model: Model, hint: InputHint) -> Resolved:
    """`resolve`, remembered per model: it traces the model once for every combination of sizes it tries."""
    if hint.fixed:
        model = model.bind(**hint.fixed)
    if hint.sizes or hint.fixed:
        return resolve(model, sizes=hint.sizes)
    if model not in _sizes_found:
        found = resolve(model)
        _sizes_found[model] = (found.shapes, found.bound, found.batch_axes)
        return found
    shapes, bound, axes = _sizes_found[model]
    return Resolved(model.bind(**bound) if bound else model, shapes, bound, axes)


_STEM = re.compile(r"(?i)([_.\-]?(in|input|out|output|prev|next|new|n|0|init))$")


def _choose(resolved: Resolved, hint: InputHint) -> int:
    specs = resolved.model.inputs
    if not specs:
        raise NotAdaptableError(
            "A model to probe must have an input that is not fixed", got="none left", where=resolved.model.origin.path
        )
    if hint.name:
        return [spec.name for spec in specs].index(hint.name)
    stems = {_STEM.sub("", spec.name) for spec in resolved.model.outputs}
    data = [i for i, s in enumerate(specs) if not is_state(s) and _STEM.sub("", s.name) not in stems and s.shape]
    candidates = data or [i for i, spec in enumerate(specs) if not is_state(spec)] or list(range(len(specs)))

    def rank(i: int) -> tuple[bool, bool, int]:
        aside = re.search(r"(?i)mask|type|position|length|segment", specs[i].name) is not None
        kind = _kind_and_layout(resolved, i, hint)[0]
        return (not aside, kind != "generic", math.prod(resolved.shapes[specs[i].name]))

    return max(candidates, key=rank)  # the first of equals


def _kind_and_layout(resolved: Resolved, index: int, hint: InputHint) -> tuple[Kind, str]:
    spec = resolved.model.inputs[index]
    shape = resolved.shapes[spec.name]
    batched = len(shape) > 1 and _carries_batch(resolved, index)
    star: str = "N*" if batched else "*"
    if hint.layout is not None:
        return _hinted(resolved.model, hint, shape)
    kind, layout = _guess(shape if batched else (1, *shape), spec.dtype)
    layout = layout if batched else layout.removeprefix("N")
    if hint.kind is None or hint.kind == kind:
        return kind, layout
    if hint.kind in ("generic", "tokens"):
        return hint.kind, star
    if hint.kind == "signal" and max(shape) == math.prod(shape[1:] if batched else shape):
        inner = shape[1:] if batched else shape
        letters = "".join("T" if n == max(inner) else "C" for n in inner)
        if letters.count("T") == 1:
            return "signal", ("N" if batched else "") + letters
    raise _bad_hint(resolved.model, f"an input of kind {hint.kind}, or `layout` to say how", f"{spec}")


def _hinted(model: Model, hint: InputHint, shape: tuple[int, ...]) -> tuple[Kind, str]:
    layout = (hint.layout or "").upper()
    kind = hint.kind or ("image" if "H" in layout else "signal" if "T" in layout else "generic")
    needed, allowed = {"image": ("HW", "NHWC"), "signal": ("T", "NTC")}.get(kind, ("*", "N*"))
    fits = (
        set(needed) <= set(layout) <= set(allowed)
        and "N" not in layout[1:]
        and len(set(layout)) == len(layout)
        and ("*" in layout or len(layout) == len(shape))
    )
    if fits and kind == "image" and "C" in layout:
        fits = shape[layout.index("C")] in _CHANNELS
    if fits and kind == "signal" and "C" in layout:
        fits = shape[layout.index("C")] == 1
    if not fits:
        raise _bad_hint(model, f"a layout of the {len(shape)} axes {shape}", f"`{hint.layout}` for {kind}")
    return kind, layout


def _carries_batch(resolved: Resolved, index: int) -> bool:
    """Whether axis 0 of an input is the batch: always when of size 1, else only if every output has it too."""
    size = resolved.shapes[resolved.model.inputs[index].name][0]
    if size == 1 or not resolved.model.traceable:
        return True
    outputs = jax.eval_shape(resolved.model.apply, resolved.model.params, *resolved.structs())
    return all(leaf.ndim and leaf.shape[0] == size for leaf in jax.tree.leaves(outputs))


def _guess(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Kind, str]:
    """Kind and layout of a batched shape."""
    floating = jnp.issubdtype(dtype, jnp.floating)
    if len(shape) == 4 and (floating or dtype == np.uint8):
        for channels in _CHANNELS:
            for layout in ("NCHW", "NHWC"):
                height, width = (shape[layout.index(axis)] for axis in "HW")
                if shape[layout.index("C")] == channels and min(height, width) >= _MIN_SIDE:
                    return "image", layout
    if not floating:
        return ("tokens", "N*") if len(shape) > 1 and dtype.kind in "iu" else ("generic", "N*")
    for layout in ("NT", "NTC", "NCT"):
        fits = len(layout) == len(shape) and shape[layout.index("T")] >= _MIN_SAMPLES
        if fits and ("C" not in layout or shape[layout.index("C")] == 1):
            return "signal", layout
    return "generic", "N*"


def _range_and_space(
    model: Model, spec: TensorSpec, kind: Kind, layout: str, shape: tuple[int, ...], hint: InputHint
) -> tuple[float, float, ProbeSpace]:
    dtype = spec.dtype
    low, high = hint.value_range or {
        "image": (0.0, 255.0 if dtype == np.uint8 else 1.0),
        "tokens": (0.0, float(_largest_token(model, spec))),
    }.get(kind, (-1.0, 1.0))
    if not (math.isfinite(low) and math.isfinite(high) and low < high) or (kind == "tokens" and dtype.kind not in "iu"):
        raise _bad_hint(model, "a finite value range, low < high, and integers for tokens", f"{kind} [{low}, {high}]")
    inner = shape[1:] if layout.startswith("N") else shape
    if kind == "image":
        sizes = dict(zip(layout, shape, strict=True))
        return low, high, image_space(sizes["H"], sizes["W"], sizes.get("C", 1))
    if kind == "signal":
        return low, high, signal_space(shape[layout.index("T")])
    if kind == "tokens":
        return low, high, ProbeSpace("tokens", (math.prod(inner),), "int32", low, high)
    return low, high, generic_space(inner, low, high)


def _largest_token(model: Model, spec: TensorSpec) -> int:
    """By the embedding table the input indexes, where the graph shows one; else bytes."""
    if spec.dtype.kind not in "iu":
        return 0
    return min((vocabulary(model, spec.name) or VOCABULARY) - 1, int(np.iinfo(spec.dtype).max))


def _other_input(spec: TensorSpec, shape: tuple[int, ...], hint: InputHint) -> tuple[np.ndarray, str]:
    """What an input that is not probed is given: zeros, ones for masks, 0..n-1 for positions."""
    what = "state" if is_state(spec) else "input"
    if re.search(r"(?i)mask", spec.name):
        return np.ones(shape, spec.dtype), f"{what} `{spec.name}` ones"
    if re.search(r"(?i)position", spec.name) and spec.dtype.kind in "iu" and shape:
        note = f"{what} `{spec.name}` 0..{shape[-1] - 1}"
        return np.broadcast_to(np.arange(shape[-1], dtype=spec.dtype), shape), note
    if re.search(r"(?i)length", spec.name) and spec.dtype.kind in "iu":
        raise NotAdaptableError(
            "An input that holds lengths cannot be guessed",
            got=str(spec),
            fix=f"pass its value: InputHint(fixed={{'{spec.name}': ...}})",
        )
    return np.zeros(shape, spec.dtype), f"{what} `{spec.name}` zeros"


def _brief(value: np.ndarray) -> str:
    return str(value.reshape(-1)[0]) if value.size == 1 else f"an array of shape {value.shape}"


def _bad_hint(model: Model, wanted: str, got: str) -> NotAdaptableError:
    return NotAdaptableError(
        f"The input hint needs {wanted}",
        got=got,
        where=model.origin.path,
        fix=f"the model's inputs are {'; '.join(map(str, model.inputs))}",
    )
