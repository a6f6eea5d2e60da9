"""The changes that turn one probe into one sample of a model's input, each with words for people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from modeldiff_jax.errors import NotAdaptableError
from modeldiff_jax.models.inputs.probed_input import ProbedInput
from modeldiff_jax.models.inputs.space import ProbeSpace


@dataclass(frozen=True)
class Step:
    """One change to a single probe. Equal steps compare equal, so models of one graph share a compilation.

    Attributes:
      text: what is done, for people.
      function, arguments: `function(probe, *arguments)` does it.
    """

    text: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()

    def __call__(self, probe: Any) -> Any:
        return self.function(probe, *self.arguments)


def steps_to(own: ProbedInput, space: ProbeSpace) -> tuple[Step, ...]:
    """From a probe of `space`, without batch, to one sample of a model's input, without batch unless it has none.

    Raises:
      NotAdaptableError: there is no way.
    """
    return _convert_values(space, own) + _to_native(own)


def _convert_values(space: ProbeSpace, own: ProbedInput) -> tuple[Step, ...]:
    """From the probes' space to the model's own, in the model's value range."""
    target = own.space
    if "tokens" in (space.kind, target.kind):
        if space.kind != target.kind:
            raise _not_adaptable(space, own, f"the kinds {space.kind} and {target.kind} do not turn into each other")
        return _tokens(space, own)
    if "generic" in (space.kind, target.kind):
        if space.size != target.size:
            raise _not_adaptable(
                space, own, f"{space.size} values are not {target.size}, and nothing says how to resize"
            )
        if space.shape == target.shape:
            return ()
        return (Step(f"reshape {_sizes(space.shape)} -> {_sizes(target.shape)}", jnp.reshape, (target.shape,)),)
    if space.kind != target.kind:
        raise _not_adaptable(space, own, f"the kinds {space.kind} and {target.kind} do not turn into each other")
    steps = _image(space.shape, target.shape) if space.kind == "image" else _signal(space.shape, target.shape)
    if (space.low, space.high) != (own.low, own.high):
        text = f"range [{space.low:g},{space.high:g}] -> [{own.low:g},{own.high:g}]"
        steps.append(Step(text, _affine, (space.low, space.high, own.low, own.high)))
    return tuple(steps)


def _image(source: tuple[int, ...], target: tuple[int, ...]) -> list[Step]:
    names = {1: "grey", 3: "RGB", 4: "RGBA"}
    steps = []
    if source[2] != target[2]:
        steps.append(Step(f"{names[source[2]]} -> {names[target[2]]}", _channels, (target[2],)))
    if source[:2] != target[:2]:
        text = f"resize {_sizes(source[:2])} -> {_sizes(target[:2])} (bilinear, antialiased)"
        steps.append(Step(text, _resize, (target,)))
    return steps


def _signal(source: tuple[int, ...], target: tuple[int, ...]) -> list[Step]:
    if source == target:
        return []
    return [Step(f"resample {source[0]} -> {target[0]} samples (linear, antialiased)", _resize, (target,))]


def _tokens(space: ProbeSpace, own: ProbedInput) -> tuple[Step, ...]:
    steps = []
    length, low, count = own.space.shape[0], int(own.low), int(own.high - own.low) + 1
    if space.shape[0] != length:
        how = "cut" if space.shape[0] > length else "repeated"
        steps.append(Step(f"length {space.shape[0]} -> {length}, {how}", _fit_length, (length,)))
    if space.low < own.low or space.high > own.high:
        text = f"vocabulary {count} <- {int(space.high - space.low) + 1} by modulo"
        steps.append(Step(text, _wrap, (low, count)))
    return tuple(steps)


def _to_native(own: ProbedInput) -> tuple[Step, ...]:
    """From the model's own space to one sample of its input: layout, axes, dtype."""
    inner = own.shape[1:] if own.layout.startswith("N") else own.shape
    letters = own.layout.removeprefix("N")
    steps = []
    if (own.space.kind == "image" and letters.replace("C", "") != "HW") or letters == "CHW":
        plain = "HWC" if "C" in letters else "HW"
        text = f"{'N' * own.layout.startswith('N')}HWC -> {own.layout}"
        steps.append(Step(text, _transpose, (tuple(plain.index(axis) for axis in letters),)))
    elif own.space.shape != inner:
        steps.append(Step("", jnp.reshape, (inner,)))
    dtype = jax.dtypes.canonicalize_dtype(own.dtype)
    if dtype != own.space.dtype:
        text = "" if own.space.kind == "tokens" else f"{own.space.dtype} -> {own.dtype.name}"
        steps.append(Step(text, _cast, (dtype.name, own.low, own.high)))
    return tuple(steps)


def _channels(x: Any, channels: int) -> Any:
    """(H, W, 1, 3 or 4) -> (H, W, channels), values in [0, 1]; grey by ITU-R BT.601, as Pillow does."""
    if x.shape[2] == 4:
        x = x[..., :3]
    if channels == 1:
        return x @ jnp.asarray([[0.299], [0.587], [0.114]], x.dtype) if x.shape[2] == 3 else x
    if x.shape[2] == 1:
        x = jnp.repeat(x, 3, axis=2)
    return x if channels == 3 else jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=2)


def _resize(x: Any, shape: tuple[int, ...]) -> Any:
    return jax.image.resize(x, shape, "linear", antialias=True)


def _affine(x: Any, low: float, high: float, new_low: float, new_high: float) -> Any:
    return new_low + (x - low) * ((new_high - new_low) / (high - low))


def _transpose(x: Any, axes: tuple[int, ...]) -> Any:
    return jnp.transpose(x if len(axes) == x.ndim else x[..., 0], axes)


def _fit_length(x: Any, length: int) -> Any:
    return x[jnp.arange(length) % x.shape[0]]


def _wrap(x: Any, low: int, count: int) -> Any:
    return low + (x - low) % count


def _cast(x: Any, dtype: str, low: float, high: float) -> Any:
    if jnp.issubdtype(dtype, jnp.integer) and jnp.issubdtype(x.dtype, jnp.floating):
        x = jnp.clip(jnp.round(x), low, high)
    return x.astype(dtype)


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _not_adaptable(space: ProbeSpace, own: ProbedInput, why: str) -> NotAdaptableError:
    spec = own.model.inputs[own.index]
    return NotAdaptableError(
        "Probes must fit the model's input",
        got=f"probes of {space} for a model of {own.space}: {why}",
        where=f"{own.model.origin.path}, input {spec}",
        fix="compare models that take the same kind of data, or say with InputHint what the input is",
    )
