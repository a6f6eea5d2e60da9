"""Convolution and its transpose."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypedDict

import jax
import jax.numpy as jnp

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.convolution import convolve, convolve_transpose
from modeldiff_jax.models.graph.values import Value, in_float32, is_narrow
from modeldiff_jax.models.graph.windows import check_windows, window_outputs
from modeldiff_jax.models.onnx.registration import op


@op("Conv")
def conv(
    x: Value,
    w: Value,
    b: Value = None,
    /,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """Returns the convolution of (N, C, spatial...) with (O, C / group, taps...)."""
    windows = conv_windows(x, w, auto_pad, dilations, group, kernel_shape, pads, strides)
    return _plus_bias(partial(convolve, groups=group, **windows), x, w, b)


class Windows(TypedDict):
    """The arguments of `convolve` that describe how a filter moves, with an entry for each spatial axis."""

    strides: tuple[int, ...]
    padding: tuple[tuple[Any, Any], ...]
    dilation: tuple[int, ...]


def conv_windows(
    x: Value,
    w: Value,
    auto_pad: str,
    dilations: Sequence[int] | None,
    group: int,
    kernel_shape: Sequence[int] | None,
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
) -> Windows:
    """Checks the attributes of a convolution of (N, C, spatial...) with (O, C / group, taps...) and converts them."""
    strides, dilations = _per_axis(x, w, kernel_shape, strides, dilations)
    if group < 1 or x.shape[1] != w.shape[1] * group or w.shape[0] % group:
        raise InvalidInputError(
            "A filter has the input's channels, and its outputs divide into the groups",
            got=f"{x.shape[1]} channels, a filter of shape {w.shape}, {group} groups",
        )
    padding = _pairs(pads, len(strides))
    if _automatic(auto_pad):
        padding = tuple(
            _halves(max((-(-size // stride) - 1) * stride + _reach(taps, dilation) - size, 0), auto_pad)
            for size, taps, stride, dilation in zip(x.shape[2:], w.shape[2:], strides, dilations, strict=True)
        )
    elif auto_pad == "VALID":
        padding = _pairs(None, len(strides))
    outputs = map(window_outputs, x.shape[2:], w.shape[2:], strides, dilations, padding)
    check_windows(x.shape, padding, (x.shape[0], w.shape[0], *outputs), math.prod(w.shape[1:]))
    return Windows(strides=strides, padding=padding, dilation=dilations)


@op("ConvTranspose")
def conv_transpose(
    x: Value,
    w: Value,
    b: Value = None,
    /,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """Returns the transposed convolution of (N, C, spatial...) with (C, O / group, taps...)."""
    strides, dilations = _per_axis(x, w, kernel_shape, strides, dilations)
    if group < 1 or x.shape[1] != w.shape[0] or w.shape[0] % group:
        raise InvalidInputError(
            "A transposed filter has the input's channels, and they divide into the groups",
            got=f"{x.shape[1]} channels, a filter of shape {w.shape}, {group} groups",
        )
    n = len(strides)
    added = tuple(output_padding or (0,) * n)
    if len(added) != n or (output_shape is not None and len(output_shape) < n):
        raise InvalidInputError(
            "output_padding and output_shape have an entry for each spatial axis",
            got=f"{output_padding}, {output_shape}",
        )
    padding = _pairs(pads, n)
    if output_shape is not None or _automatic(auto_pad):
        sizes = output_shape[-n:] if output_shape else [size * s for size, s in zip(x.shape[2:], strides, strict=True)]
        padding = tuple(
            _halves((size - 1) * stride + _reach(taps, dilation) + more - output_size, auto_pad)
            for size, taps, stride, dilation, more, output_size in zip(
                x.shape[2:], w.shape[2:], strides, dilations, added, sizes, strict=True
            )
        )
    elif auto_pad == "VALID":
        padding = _pairs(None, n)
    padding = tuple((before, after - more) for (before, after), more in zip(padding, added, strict=True))
    _check_transposed(x, w, strides, dilations, padding, group)
    transposed = partial(convolve_transpose, strides=strides, padding=padding, dilation=dilations, groups=group)
    return _plus_bias(transposed, x, w, b)


def _check_transposed(
    x: Value,
    w: Value,
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: Sequence[tuple[Any, Any]],
    group: int,
) -> None:
    """Checks what a transposed convolution makes: the whole result, and what is cut off it or added to it."""
    sizes = x.shape[2:]
    whole = [(n - 1) * s + _reach(t, d) for n, s, t, d in zip(sizes, strides, w.shape[2:], dilations, strict=True)]
    outputs = [size - before - after for size, (before, after) in zip(whole, padding, strict=True)]
    reads, front = math.prod(w.shape[2:]) * (w.shape[0] // group), (x.shape[0], w.shape[1] * group)
    check_windows((*front, *outputs), padding, (*front, *whole), reads)
    check_windows((*front, *whole), [(-before, -after) for before, after in padding], (*front, *outputs), reads)


def _per_axis(
    x: Value,
    w: Value,
    kernel_shape: Sequence[int] | None,
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the strides and dilations of every spatial axis, checked."""
    n = x.ndim - 2
    if n < 1 or w.ndim != x.ndim or (kernel_shape is not None and tuple(kernel_shape) != tuple(w.shape[2:])):
        raise InvalidInputError(
            "A filter has the rank of its input, at least 3, and taps as in kernel_shape",
            got=f"input {x.shape}, filter {w.shape}, kernel_shape {kernel_shape}",
        )
    strides, dilations = tuple(strides or (1,) * n), tuple(dilations or (1,) * n)
    if len(strides) != n or len(dilations) != n or min(*strides, *dilations) < 1:
        raise InvalidInputError(
            "Strides and dilations are positive, one for each spatial axis", got=f"{strides}, {dilations}"
        )
    return strides, dilations


def _reach(taps: int, dilation: int) -> int:
    return (taps - 1) * dilation + 1


def _automatic(auto_pad: str) -> bool:
    if auto_pad not in ("NOTSET", "", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise InvalidInputError("auto_pad is NOTSET, VALID, SAME_UPPER or SAME_LOWER", got=auto_pad)
    return auto_pad.startswith("SAME")


def _pairs(pads: Sequence[int] | None, n: int) -> tuple[tuple[int, int], ...]:
    """Returns pads, which ONNX lists as all before the axes and then all after, as a pair for each axis."""
    pads = pads or (0,) * (2 * n)
    if len(pads) != 2 * n:
        raise InvalidInputError("pads has two entries for each spatial axis", got=f"{tuple(pads)} for {n} axes")
    return tuple(zip(pads[:n], pads[n:], strict=True))


def _halves(total: Any, auto_pad: str) -> tuple[Any, Any]:
    """Splits padding into before and after; the larger half is after for SAME_UPPER, else before."""
    if isinstance(total, int) and total < 0:  # an output_shape larger than the output without padding
        return 0, total
    return (total // 2, total - total // 2) if auto_pad == "SAME_UPPER" else (total - total // 2, total // 2)


def _plus_bias(convolution: Callable[[Value, Value], Value], x: Value, w: Value, b: Value) -> Value:
    """Returns `convolution(x, w) + b`.

    CPUs convolve floats narrower than float32 in float32, so on them the bias is added before the result is
    rounded. Other devices have units for narrow floats, whose results are already rounded.
    """
    if b is None:
        return convolution(x, w)

    def added(x: Value, w: Value, b: Value) -> Value:
        y = convolution(x, w)
        return y + jnp.reshape(b, (1, -1, *(1,) * (y.ndim - 2)))

    return jax.lax.platform_dependent(x, w, b, cpu=in_float32(added), default=added) if is_narrow(x) else added(x, w, b)
