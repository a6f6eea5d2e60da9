"""Steps that convert one probe to one sample of a model's input, each with its description."""

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
    """One conversion of a single probe. Equal steps compare equal, so models of one graph share a compilation.

    Attributes:
      text: description for reports; empty for steps that need none.
      function, arguments: `function(probe, *arguments)` converts the probe.
    """

    text: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()

    def __call__(self, probe: Any) -> Any:
        return self.function(probe, *self.arguments)


def steps_to(probed: ProbedInput, space: ProbeSpace) -> tuple[Step, ...]:
    """Returns the steps from a probe of `space` to one sample of a model's input, both without a batch axis.

    Raises:
      NotAdaptableError: there are none.
    """
    return _convert_values(space, probed) + _to_native(probed)


def _convert_values(space: ProbeSpace, probed: ProbedInput) -> tuple[Step, ...]:
    """Returns the steps from the probes' space to that of the model's input, in its value range."""
    target = probed.space
    if "tokens" in (space.kind, target.kind):
        if space.kind != target.kind:
            raise _not_adaptable(
                space, probed, f"the kinds {space.kind} and {target.kind} cannot be converted to each other"
            )
        return _tokens(space, probed)
    if "generic" in (space.kind, target.kind):
        if space.size != target.size:
            raise _not_adaptable(
                space, probed, f"{space.size} values are not {target.size}, and nothing defines how to resize them"
            )
        if space.shape == target.shape:
            return ()
        return (Step(f"reshape {_sizes(space.shape)} -> {_sizes(target.shape)}", jnp.reshape, (target.shape,)),)
    if space.kind != target.kind:
        raise _not_adaptable(
            space, probed, f"the kinds {space.kind} and {target.kind} cannot be converted to each other"
        )
    steps = _image(space.shape, target.shape) if space.kind == "image" else _signal(space.shape, target.shape)
    if (space.low, space.high) != (probed.low, probed.high):
        text = f"range [{space.low:g},{space.high:g}] -> [{probed.low:g},{probed.high:g}]"
        steps.append(Step(text, _affine, (space.low, space.high, probed.low, probed.high)))
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


def _tokens(space: ProbeSpace, probed: ProbedInput) -> tuple[Step, ...]:
    steps = []
    length, low, count = probed.space.shape[0], int(probed.low), int(probed.high - probed.low) + 1
    if space.shape[0] != length:
        change = "cut" if space.shape[0] > length else "repeated"
        steps.append(Step(f"length {space.shape[0]} -> {length}, {change}", _fit_length, (length,)))
    if space.low < probed.low or space.high > probed.high:
        text = f"vocabulary {count} <- {int(space.high - space.low) + 1} by modulo"
        steps.append(Step(text, _wrap, (low, count)))
    return tuple(steps)


def _to_native(probed: ProbedInput) -> tuple[Step, ...]:
    """Returns the steps from the space of the model's input to one sample of it: layout, axes, dtype."""
    inner = probed.shape[1:] if probed.layout.startswith("N") else probed.shape
    letters = probed.layout.removeprefix("N")
    steps = []
    if (probed.space.kind == "image" and letters.replace("C", "") != "HW") or letters == "CHW":
        order = "HWC" if "C" in letters else "HW"
        text = f"{'N' * probed.layout.startswith('N')}HWC -> {probed.layout}"
        steps.append(Step(text, _transpose, (tuple(order.index(axis) for axis in letters),)))
    elif probed.space.shape != inner:
        steps.append(Step("", jnp.reshape, (inner,)))
    dtype = jax.dtypes.canonicalize_dtype(probed.dtype)
    if dtype != probed.space.dtype:
        text = "" if probed.space.kind == "tokens" else f"{probed.space.dtype} -> {probed.dtype.name}"
        steps.append(Step(text, _cast, (dtype.name, probed.low, probed.high)))
    return tuple(steps)


def _channels(x: Any, channels: int) -> Any:
    """Converts (H, W, 1, 3 or 4) to (H, W, channels), values in [0, 1]; grey by ITU-R BT.601, as Pillow does."""
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


def _not_adaptable(space: ProbeSpace, probed: ProbedInput, why: str) -> NotAdaptableError:
    spec = probed.model.inputs[probed.index]
    return NotAdaptableError(
        "Probes must fit the model's input",
        got=f"probes of {space} for a model of {probed.space}: {why}",
        where=f"{probed.model.origin.path}, input {spec}",
        fix="compare models that take the same kind of data, or describe the input with InputHint",
    )
