"""Chooses the input of a model to probe, its sizes and its layout, and the values of the model's other inputs.

`probed_input` connects a model to its probe space: the form of input that it shares with other models.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import NotAdaptableError
from modeldiff_jax.models.inputs.roles import Role, is_state, role, usual_value
from modeldiff_jax.models.inputs.sizes import Resolved, resolve
from modeldiff_jax.models.inputs.space import (
    CHANNELS,
    VOCABULARY,
    Kind,
    ProbeSpace,
    generic_space,
    image_space,
    signal_space,
)
from modeldiff_jax.models.inputs.vocabulary import vocabulary
from modeldiff_jax.models.model import Model
from modeldiff_jax.types import TensorSpec

_MIN_SIDE, _MIN_SAMPLES = 8, 128


@dataclass(frozen=True, eq=False)
class InputHint:
    """Facts about a model's inputs that its file does not hold, from the caller: `md.InputHint`, or `--input-kind` etc.

    Attributes:
      name: the input to probe.
      kind: its kind.
      layout: its axes in order, as letters: N batch, H, W, C for images (`NCHW`, `NHWC`, `CHW`, `NHW`), N, T, C for
        signals (`NT`, `NTC`, `NCT`, `T`).
      value_range: smallest and largest value that it takes: (0, 255) for an image model that scales pixels itself,
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
    """A model at concrete sizes with its probed input.

    Attributes:
      model: the model, with inputs that decide shapes or branches bound.
      structs: shape and device dtype of each input in declared order.
      index: position of the probed input.
      shape, dtype: of the probed input, batch axis included.
      layout: its axes as letters; for tokens and generic inputs `N` and `*` for all other axes, or `*` alone.
      low, high: its native value range.
      space: the model's natural probe space.
      others: values of the other inputs by name, at the batch size in `shape`.
      batch_axes: for each input the axis whose size is the batch size, or `None`.
      notes: values that inputs were fixed to, as text for reports.
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


def probed_input(model: Model, hint: InputHint | None = None) -> ProbedInput:
    """Chooses the input of a model to probe, its sizes and its layout, and the values of the other inputs.

    Args:
      model: any model; dynamic sizes get usual values.
      hint: facts that the model's file does not hold.
    Raises:
      NotAdaptableError: no input can be probed, or the hint does not fit.
      InvalidInputError: no usual sizes work.
    """
    hint = hint or InputHint()
    unknown = {*hint.fixed, *([hint.name] if hint.name else [])} - set(model.input_names)
    if unknown:
        raise _bad_hint(model, "names of the model's inputs", f"inputs {sorted(unknown)}")
    resolved = _resolve(model, hint)
    specs = resolved.model.inputs
    index = _choose(resolved, hint)
    shape, dtype = tuple(resolved.shapes[specs[index].name]), specs[index].dtype
    kind, layout = _kind_and_layout(resolved, index, hint)
    low, high, space = _range_and_space(resolved.model, specs[index], kind, layout, shape, hint)
    others, notes = {}, [f"input `{name}` fixed to {_brief(value)}" for name, value in resolved.bound.items()]
    for i, spec in enumerate(specs):
        if i != index:
            others[spec.name], note = _other_input(spec, resolved.shapes[spec.name])
            notes.append(note)
    axes = resolved.batch_axes
    return ProbedInput(
        resolved.model, resolved.structs(), index, shape, dtype, layout, low, high, space, others, axes, tuple(notes)
    )


def _resolve(model: Model, hint: InputHint) -> Resolved:
    return resolve(model.bind(**hint.fixed) if hint.fixed else model, sizes=hint.sizes)


_STEM = re.compile(r"(?i)([_.\-]?(in|input|out|output|prev|next|new|n|0|init))$")


def _choose(resolved: Resolved, hint: InputHint) -> int:
    specs = resolved.model.inputs
    if not specs:
        raise NotAdaptableError(
            "A model to probe must have an input that is not fixed", got="none", where=resolved.model.origin.path
        )
    if hint.name:
        return [spec.name for spec in specs].index(hint.name)
    stems = {_STEM.sub("", spec.name) for spec in resolved.model.outputs}
    data = [i for i, s in enumerate(specs) if not is_state(s) and _STEM.sub("", s.name) not in stems and s.shape]
    candidates = data or [i for i, spec in enumerate(specs) if not is_state(spec)] or list(range(len(specs)))

    def rank(i: int) -> tuple[bool, bool, int]:
        kind = _kind_and_layout(resolved, i, hint)[0]
        return (role(specs[i]) is Role.DATA, kind != "generic", math.prod(resolved.shapes[specs[i].name]))

    return max(candidates, key=rank)  # the first of equals


def _kind_and_layout(resolved: Resolved, index: int, hint: InputHint) -> tuple[Kind, str]:
    spec = resolved.model.inputs[index]
    shape = resolved.shapes[spec.name]
    batched = len(shape) > 1 and _carries_batch(resolved, index)
    generic_layout = "N*" if batched else "*"
    if hint.layout is not None:
        return _hinted(resolved.model, hint, shape)
    kind, layout = _guess(shape if batched else (1, *shape), spec.dtype)
    layout = layout if batched else layout.removeprefix("N")
    if hint.kind is None or hint.kind == kind:
        return kind, layout
    if hint.kind in ("generic", "tokens"):
        return hint.kind, generic_layout
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
        fits = shape[layout.index("C")] in CHANNELS
    if fits and kind == "signal" and "C" in layout:
        fits = shape[layout.index("C")] == 1
    if not fits:
        raise _bad_hint(model, f"a layout of the {len(shape)} axes {shape}", f"`{hint.layout}` for {kind}")
    return kind, layout


def _carries_batch(resolved: Resolved, index: int) -> bool:
    """Returns whether axis 0 of an input is the batch: always if its size is 1, else if every output has it too."""
    size = resolved.shapes[resolved.model.inputs[index].name][0]
    if size == 1 or not resolved.model.traceable:
        return True
    outputs = jax.eval_shape(resolved.model.apply, resolved.model.params, *resolved.structs())
    return all(leaf.ndim and leaf.shape[0] == size for leaf in jax.tree.leaves(outputs))


def _guess(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Kind, str]:
    """Returns the likely kind and layout of a batched shape."""
    floating = jnp.issubdtype(dtype, jnp.floating)
    if len(shape) == 4 and (floating or dtype == np.uint8):
        for channels in CHANNELS:
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
    """Returns the last index into the embedding table that the input indexes, or 255 if the graph has none."""
    if spec.dtype.kind not in "iu":
        return 0
    return min((vocabulary(model, spec.name) or VOCABULARY) - 1, int(np.iinfo(spec.dtype).max))


def _other_input(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[np.ndarray, str]:
    """Returns the value of an input that is not probed, and a note on it."""
    noun = "state" if is_state(spec) else "input"
    match role(spec):
        case Role.MASK:
            value = "ones"
        case Role.POSITION if shape:
            value = f"0..{shape[-1] - 1}"
        case Role.LENGTH:
            raise NotAdaptableError(
                "An input that holds lengths cannot be guessed",
                got=str(spec),
                fix=f"pass its value: md.InputHint(fixed={{'{spec.name}': ...}})",
            )
        case _:
            value = "zeros"
    return usual_value(spec, shape), f"{noun} `{spec.name}` {value}"


def _brief(value: np.ndarray) -> str:
    return str(value.reshape(-1)[0]) if value.size == 1 else f"an array of shape {value.shape}"


def _bad_hint(model: Model, wanted: str, got: str) -> NotAdaptableError:
    return NotAdaptableError(
        f"The input hint needs {wanted}",
        got=got,
        where=model.origin.path,
        fix=f"the model's inputs are {'; '.join(map(str, model.inputs))}",
    )
