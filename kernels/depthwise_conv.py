"""Depthwise convolution: each channel is convolved with filters for that channel alone.

On a CPU, XLA's grouped convolution takes 5 to 90 times longer than necessary for these, and its input gradient up to
170 times. There, `xla` multiplies shifted slices of the padded input by one weight per channel and adds them up,
channels last so that they fill the vector registers. Its input gradient adds shifted slices of the output's gradient:
with stride s, each of the s offsets within a stride is reached by every s-th tap only, so each is a small depthwise
convolution, and the results are interleaved. Other devices keep the grouped convolution.

Types: any floating type; float16 and bfloat16 accumulate in float32. Products of float32 are in float32 on every
device. Both arguments have gradients; `jax.jvp` is not supported, because the custom reverse-mode rule has no
forward-mode one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.dispatch import run
from modeldiff_jax.kernels.inputs import AnyArray

Layout: TypeAlias = Literal["channels_first", "channels_last"]
Padding: TypeAlias = Sequence[tuple[int, int]]

_MAX_SLICES = 64
"""With more taps, or entries in a stride, a program with a slice for each takes longer to compile than it saves."""


class Window(NamedTuple):
    """The movement of a filter along one spatial axis."""

    taps: int
    stride: int
    dilation: int
    before: int
    after: int
    """Zeros before and after the input; negative ones crop it."""

    @property
    def extent(self) -> int:
        """Number of entries from the first tap to the last, both included."""
        return (self.taps - 1) * self.dilation + 1

    def outputs(self, size: Any) -> Any:
        """Returns the number of outputs for `size` inputs."""
        return (size + self.before + self.after - self.extent) // self.stride + 1


Windows: TypeAlias = tuple[Window, ...]


def depthwise_conv(
    x: Float[AnyArray, "n ..."],
    w: Float[AnyArray, "*filter"],
    *,
    strides: Sequence[int] | None = None,
    padding: Padding | None = None,
    dilation: Sequence[int] | None = None,
    layout: Layout = "channels_first",
    implementation: str | None = None,
) -> Float[Array, "n ..."]:
    """Convolves each channel with filters for that channel alone, in any number of spatial axes.

    Args:
      x: (N, C, spatial...), or (N, spatial..., C) with `channels_last`.
      w: (C * M, 1, taps...), or (taps..., 1, C * M) with `channels_last`; output channel c * M + m reads channel c.
      strides: strides of the filter, one per spatial axis; 1 by default.
      padding: zeros before and after the input, one pair per spatial axis; none by default. Negative ones crop it.
      dilation: distance between taps, one per spatial axis; 1 by default.
      layout: axis of the channels in `x` and in the result.
      implementation: "xla" (shifted slices, up to 64 taps and strides of 64 entries), "reference" (the grouped
        convolution), or None for the first that serves the call on a CPU and the grouped convolution elsewhere.

    Returns:
      (N, C * M, spatial...) or (N, spatial..., C * M), of the dtype of `x`.

    Raises:
      InvalidInputError: ranks, channels or lengths of the arguments do not match.
      NotImplementedError: "xla" was requested by name and there are more taps, or longer strides.
    """
    x, w, windows = canonical(x, w, strides, padding, dilation, layout, "depthwise_conv")
    channels, outputs = x.shape[-1], w.shape[-1]
    if w.shape[-2] != 1 or outputs % channels:
        raise InvalidInputError(
            "A depthwise filter has one input channel and a multiple of the input's channels as outputs",
            got=f"{channels} input channels, filters of {w.shape[-2]} to {outputs}",
            where="depthwise_conv",
        )
    y = depthwise_channels_last(jnp.repeat(x, outputs // channels, -1), w[..., 0, :], windows, implementation)
    return jnp.moveaxis(y, -1, 1) if layout == "channels_first" else y


def canonical(
    x: AnyArray,
    w: AnyArray,
    strides: Sequence[int] | None,
    padding: Padding | None,
    dilation: Sequence[int] | None,
    layout: Layout,
    where: str,
) -> tuple[Array, Array, Windows]:
    """Checks the arguments; returns `x` as (N, spatial..., C), `w` as (taps..., inputs, outputs), and the windows."""
    x, w = jnp.asarray(x), jnp.asarray(w)
    n = x.ndim - 2
    strides, padding, dilation = strides or (1,) * n, padding or ((0, 0),) * n, dilation or (1,) * n
    if n < 0 or w.ndim != x.ndim or not len(strides) == len(padding) == len(dilation) == n:
        raise InvalidInputError(
            "Input and filter have one rank, and one stride, pair of pads and dilation for each spatial axis",
            got=f"input {x.shape}, filter {w.shape}, {strides}, {padding}, {dilation}",
            where=where,
        )
    if min((*strides, *dilation), default=1) < 1:
        raise InvalidInputError("Strides and dilations are positive", got=f"{strides}, {dilation}", where=where)
    if layout == "channels_first":
        x, w = jnp.moveaxis(x, 1, -1), jnp.moveaxis(w, (0, 1), (-1, -2))
    axes = zip(w.shape[:n], strides, dilation, padding, strict=True)
    return x, w, tuple(Window(taps, s, d, before, after) for taps, s, d, (before, after) in axes)


@partial(jax.jit, static_argnums=(2, 3))
@jax.named_scope("depthwise_conv")
def depthwise_channels_last(
    x: Float[Array, "n ... c"], w: Float[Array, "... c"], windows: Windows, implementation: str | None = None
) -> Float[Array, "n ... c"]:
    """Convolves (N, spatial..., C) with (taps..., C)."""
    if implementation is not None:
        return run("depthwise_conv", VARIANTS, implementation, x, w, windows)
    return reference(x, w, windows) if _slices(windows) > _MAX_SLICES else _convolve(x, w, windows, False)


def _slices(windows: Windows) -> int:
    """Returns how many slices the program writes out: one for each tap, or for each offset within a stride."""
    return max(math.prod(v.taps for v in windows), math.prod(v.stride for v in windows))


def reference(x: Float[Array, "n ... c"], w: Float[Array, "... c"], windows: Windows) -> Float[Array, "n ... c"]:
    """Calls XLA's grouped convolution with one channel per group: the definition."""
    axes = "0123456789"[: len(windows)]
    return lax.conv_general_dilated(
        x,
        w[..., None, :],
        [v.stride for v in windows],
        [(v.before, v.after) for v in windows],
        rhs_dilation=[v.dilation for v in windows],
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=w.shape[-1],
        precision=lax.Precision.HIGHEST,
    )


def xla(x: Float[Array, "n ... c"], w: Float[Array, "... c"], windows: Windows) -> Float[Array, "n ... c"]:
    """Sums shifted slices, on any device."""
    if _slices(windows) > _MAX_SLICES:
        raise NotImplementedError(f"more than {_MAX_SLICES} taps or strides compile too slowly as slices: {windows}")
    return _convolve(x, w, windows, True)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x: Array, w: Array, windows: Windows, everywhere: bool) -> Array:
    """Sums shifted slices on a CPU only, or everywhere."""
    sliced, grouped = partial(_forward, windows=windows), partial(reference, windows=windows)
    return select_by_platform(everywhere, sliced, grouped, x, w)


def select_by_platform(
    everywhere: bool, on_cpu: Callable[..., Array], elsewhere: Callable[..., Array], *args: Array
) -> Array:
    """Calls `on_cpu(*args)` on a CPU, or everywhere; else `elsewhere(*args)`."""
    return on_cpu(*args) if everywhere else lax.platform_dependent(*args, cpu=on_cpu, default=elsewhere)


def _residuals(x: Array, w: Array, windows: Windows, everywhere: bool) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, w, windows, everywhere), (x, w)


def _gradients(windows: Windows, everywhere: bool, residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = residuals
    sizes = x.shape[1:-1]
    return (  # two selections, so that an unused gradient is eliminated whole
        select_by_platform(
            everywhere,
            lambda g, w: _input_gradient(g, w, windows, sizes),
            lambda g, w: jax.linear_transpose(lambda x: reference(x, w, windows), x)(g)[0],
            g,
            w,
        ),
        select_by_platform(
            everywhere,
            lambda g, x: _filter_gradient(g, x, windows),
            lambda g, x: jax.linear_transpose(lambda w: reference(x, w, windows), w)(g)[0],
            g,
            x,
        ),
    )


_convolve.defvjp(_residuals, _gradients)


def _forward(x: Array, w: Array, windows: Windows) -> Array:
    dtype, (x, w) = x.dtype, _in_float32(x, w)
    inputs_of, row = _inputs_by_tap(x, windows), (1,) * (x.ndim - 1)
    terms = (inputs_of(tap) * w[tap].reshape(*row, -1) for tap in np.ndindex(*w.shape[:-1]))
    return reduce(jnp.add, terms).astype(dtype)


def _input_gradient(g: Array, w: Array, windows: Windows, sizes: Sequence[Any]) -> Array:
    dtype, (g, w) = g.dtype, _in_float32(g, w)
    n = len(windows)
    # Along one axis the padded input consists of `steps` strides. Offset p within each is reached by the taps i with
    # i * dilation = p (mod stride), from the output (i * dilation) // stride steps earlier.
    steps = [-(-(size + v.before + v.after) // v.stride) for v, size in zip(windows, sizes, strict=True)]
    margin = [(v.extent - 1) // v.stride for v in windows]
    ends = [(m, t - size, 0) for m, t, size in zip(margin, steps, g.shape[1:-1], strict=True)]
    padded = lax.optimization_barrier(pad_spatial(g, ends))

    def at_offset(offset: tuple[int, ...]) -> Array:
        reaching = [
            [i for i in range(v.taps) if i * v.dilation % v.stride == p] for v, p in zip(windows, offset, strict=True)
        ]
        total = None
        for tap in np.ndindex(*map(len, reaching)):
            index = tuple(reaching[a][i] for a, i in enumerate(tap))
            starts = [m - i * v.dilation // v.stride for m, i, v in zip(margin, index, windows, strict=True)]
            cuts = (slice(b, b + t) for b, t in zip(starts, steps, strict=True))
            term = padded[(slice(None), *cuts)] * w[index].reshape((1,) * (n + 1) + (-1,))
            total = term if total is None else total + term
        return jnp.zeros((g.shape[0], *steps, g.shape[-1]), g.dtype) if total is None else total

    def interleaved(offset: tuple[int, ...]) -> Array:
        axis = len(offset)
        if axis == n:
            return at_offset(offset)
        return jnp.stack([interleaved((*offset, p)) for p in range(windows[axis].stride)], 2 + axis)

    whole = [t * v.stride for t, v in zip(steps, windows, strict=True)]
    y = interleaved(()).reshape(g.shape[0], *whole, g.shape[-1])
    cuts = [(-v.before, size + v.before - t, 0) for v, size, t in zip(windows, sizes, whole, strict=True)]
    return pad_spatial(y, cuts).astype(dtype)


def _filter_gradient(g: Array, x: Array, windows: Windows) -> Array:
    dtype, (x, g) = x.dtype, _in_float32(x, g)
    inputs_of, g = _inputs_by_tap(x, windows), _materialised(g)
    taps = [v.taps for v in windows]
    reduced = tuple(range(x.ndim - 1))
    sums = [jnp.sum(inputs_of(tap) * g, reduced) for tap in np.ndindex(*taps)]
    return jnp.stack(sums).reshape(*taps, -1).astype(dtype)


def _inputs_by_tap(x: Array, windows: Windows) -> Callable[[tuple[int, ...]], Array]:
    """Returns a function from a tap to the inputs it multiplies, one for each output."""
    padded = lax.optimization_barrier(pad_spatial(x, [(v.before, v.after, 0) for v in windows]))
    lengths = [v.stride * (v.outputs(size) - 1) + 1 for v, size in zip(windows, x.shape[1:-1], strict=True)]

    def inputs_of(tap: tuple[int, ...]) -> Array:
        starts = [i * v.dilation for i, v in zip(tap, windows, strict=True)]
        axes = zip(starts, lengths, windows, strict=True)
        cuts = (slice(start, start + length, v.stride) for start, length, v in axes)
        return padded[(slice(None), *cuts)]

    return inputs_of


def _materialised(x: Array) -> Array:
    """Returns `x`, computed once. XLA would recompute it in the sum of each tap.

    An optimisation barrier does not prevent that, but appending zeros and removing them does.
    """
    padded = lax.optimization_barrier(pad_spatial(x, [(0, 1, 0)] * (x.ndim - 2)))
    return padded[(slice(None), *(slice(size) for size in x.shape[1:-1]))]


def pad_spatial(x: Array, ends: Sequence[tuple[Any, Any, int]]) -> Array:
    """Inserts zeros before, after and between the entries of each spatial axis; negative numbers crop."""
    if all(end == (0, 0, 0) for end in ends):
        return x
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *ends, (0, 0, 0)])


def _in_float32(*arrays: Array) -> tuple[Array, ...]:
    return tuple(a.astype(jnp.float32) if a.dtype.itemsize < 4 else a for a in arrays)


VARIANTS = {"xla": xla, "reference": reference}
