"""Depthwise convolution: each channel has filters of its own.

XLA's grouped convolution takes 5 to 90 times as long as it need on CPU for these, and its input gradient up to 170
times. There, `xla` multiplies shifted slices of the padded input by one weight a channel and adds them up, channels
last so that they fill the vector registers. Its input gradient adds shifted slices of the output's gradient: with
stride s, each of the s places within a stride is reached by every s-th tap only, so each is a small depthwise
convolution by itself, and the results are interleaved. Other devices keep the grouped convolution.

Types: any floating type; float16 and bfloat16 are accumulated in float32. Products of float32 are in float32 on every
device. Both arguments have gradients; `jax.jvp` is not supported (a custom reverse rule has no forward one).
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

Layout: TypeAlias = Literal["channels_first", "channels_last"]
Padding: TypeAlias = Sequence[tuple[int, int]]

_MAX_TAPS = 64
"""Beyond this many taps a program of one slice a tap takes longer to compile than it saves."""


class Window(NamedTuple):
    """How a filter moves along one spatial axis."""

    taps: int
    stride: int
    dilation: int
    before: int
    after: int
    """Zeros put before and after the input; negative ones cut it."""

    @property
    def reach(self) -> int:
        """Places from the first tap to the last, both included."""
        return (self.taps - 1) * self.dilation + 1

    def outputs(self, size: Any) -> Any:
        """Places the filter takes over `size` inputs."""
        return (size + self.before + self.after - self.reach) // self.stride + 1


Windows: TypeAlias = tuple[Window, ...]


def depthwise_conv(
    x: Float[Array, "n ..."],
    w: Float[Array, "*filter"],
    *,
    strides: Sequence[int] | None = None,
    padding: Padding | None = None,
    dilation: Sequence[int] | None = None,
    layout: Layout = "channels_first",
    implementation: str | None = None,
) -> Float[Array, "n ..."]:
    """Convolves each channel with its own filters, in any number of spatial axes.

    Args:
      x: (N, C, spatial...), or (N, spatial..., C) with `channels_last`.
      w: (C * M, 1, taps...), or (taps..., 1, C * M) with `channels_last`; output channel c * M + m reads channel c.
      strides: of the filter, one a spatial axis; 1 by default.
      padding: zeros before and after, one pair a spatial axis; none by default. Negative ones cut the input.
      dilation: distance between taps, one a spatial axis; 1 by default.
      layout: where the channels are in `x` and in the result.
      implementation: "xla" (shifted slices, up to 64 taps), "reference" (the grouped convolution), or None, which is
        the first that serves the call on CPU and the grouped convolution elsewhere.

    Returns:
      (N, C * M, spatial...) or (N, spatial..., C * M), of the type of `x`.

    Raises:
      InvalidInputError: ranks, channels or the lengths of the arguments do not fit.
      NotImplementedError: "xla" was asked for by name and there are more taps.
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
    x: Array,
    w: Array,
    strides: Sequence[int] | None,
    padding: Padding | None,
    dilation: Sequence[int] | None,
    layout: Layout,
    where: str,
) -> tuple[Array, Array, Windows]:
    """`x` as (N, spatial..., C), `w` as (taps..., inputs, outputs), and the windows; checked."""
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
    """The convolution of (N, spatial..., C) with (taps..., C)."""
    if implementation is not None:
        return run("depthwise_conv", VARIANTS, implementation, x, w, windows)
    return reference(x, w, windows) if math.prod(w.shape[:-1]) > _MAX_TAPS else _convolve(x, w, windows, False)


def reference(x: Float[Array, "n ... c"], w: Float[Array, "... c"], windows: Windows) -> Float[Array, "n ... c"]:
    """XLA's grouped convolution with one channel a group."""
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
    """The sum of shifted slices, on any device."""
    if math.prod(w.shape[:-1]) > _MAX_TAPS:
        raise NotImplementedError(f"more than {_MAX_TAPS} taps compile too slowly as one slice each: {w.shape[:-1]}")
    return _convolve(x, w, windows, True)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x: Array, w: Array, windows: Windows, everywhere: bool) -> Array:
    """Shifted slices on CPU, or `everywhere`."""
    return choose(everywhere, lambda x, w: _forward(x, w, windows), lambda x, w: reference(x, w, windows), x, w)


def choose(everywhere: bool, here: Callable[..., Array], elsewhere: Callable[..., Array], *args: Array) -> Array:
    """`here(*args)` on CPU or `everywhere`, else `elsewhere(*args)`."""
    return here(*args) if everywhere else lax.platform_dependent(*args, cpu=here, default=elsewhere)


def _residuals(x: Array, w: Array, windows: Windows, everywhere: bool) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, w, windows, everywhere), (x, w)


def _gradients(windows: Windows, everywhere: bool, residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = residuals
    sizes = x.shape[1:-1]
    return (  # two choices, so that the gradient that nobody asks for is dropped whole
        choose(
            everywhere,
            lambda g, w: _input_gradient(g, w, windows, sizes),
            lambda g, w: jax.linear_transpose(lambda x: reference(x, w, windows), x)(g)[0],
            g,
            w,
        ),
        choose(
            everywhere,
            lambda g, x: _filter_gradient(g, x, windows),
            lambda g, x: jax.linear_transpose(lambda w: reference(x, w, windows), w)(g)[0],
            g,
            x,
        ),
    )


_convolve.defvjp(_residuals, _gradients)


def _forward(x: Array, w: Array, windows: Windows) -> Array:
    dtype, (x, w) = x.dtype, _accumulated(x, w)
    places, row = _taps(x, windows), (1,) * (x.ndim - 1)
    terms = (places(tap) * w[tap].reshape(*row, -1) for tap in np.ndindex(*w.shape[:-1]))
    return reduce(jnp.add, terms).astype(dtype)


def _input_gradient(g: Array, w: Array, windows: Windows, sizes: Sequence[Any]) -> Array:
    dtype, (g, w) = g.dtype, _accumulated(g, w)
    n = len(windows)
    # Along one axis the padded input is cut into `steps` strides; place p of each is reached by the taps i with
    # i * dilation = p (mod stride), from the output (i * dilation) // stride steps before.
    steps = [-(-(size + v.before + v.after) // v.stride) for v, size in zip(windows, sizes, strict=True)]
    margin = [(v.reach - 1) // v.stride for v in windows]
    ends = [(m, t - size, 0) for m, t, size in zip(margin, steps, g.shape[1:-1], strict=True)]
    padded = lax.optimization_barrier(pad_spatial(g, ends))

    def place(at: tuple[int, ...]) -> Array:
        reaching = [
            [i for i in range(v.taps) if i * v.dilation % v.stride == p] for v, p in zip(windows, at, strict=True)
        ]
        total = None
        for tap in np.ndindex(*map(len, reaching)):
            index = tuple(reaching[a][i] for a, i in enumerate(tap))
            starts = [m - i * v.dilation // v.stride for m, i, v in zip(margin, index, windows, strict=True)]
            cuts = (slice(b, b + t) for b, t in zip(starts, steps, strict=True))
            here = padded[(slice(None), *cuts)] * w[index].reshape((1,) * (n + 1) + (-1,))
            total = here if total is None else total + here
        return jnp.zeros((g.shape[0], *steps, g.shape[-1]), g.dtype) if total is None else total

    def interleaved(at: tuple[int, ...]) -> Array:
        if len(at) == n:
            return place(at)
        return jnp.stack([interleaved((*at, p)) for p in range(windows[len(at)].stride)], 2 + len(at))

    whole = [t * v.stride for t, v in zip(steps, windows, strict=True)]
    y = interleaved(()).reshape(g.shape[0], *whole, g.shape[-1])
    cuts = [(-v.before, size + v.before - t, 0) for v, size, t in zip(windows, sizes, whole, strict=True)]
    return pad_spatial(y, cuts).astype(dtype)


def _filter_gradient(g: Array, x: Array, windows: Windows) -> Array:
    dtype, (x, g) = x.dtype, _accumulated(x, g)
    places, g = _taps(x, windows), _kept(g)
    taps = [v.taps for v in windows]
    reduced = tuple(range(x.ndim - 1))
    sums = [jnp.sum(places(tap) * g, reduced) for tap in np.ndindex(*taps)]
    return jnp.stack(sums).reshape(*taps, -1).astype(dtype)


def _taps(x: Array, windows: Windows) -> Any:
    """A function that gives, for a tap, the input it meets at all places of the filter."""
    padded = lax.optimization_barrier(pad_spatial(x, [(v.before, v.after, 0) for v in windows]))
    reach = [v.stride * (v.outputs(size) - 1) + 1 for v, size in zip(windows, x.shape[1:-1], strict=True)]

    def places(tap: tuple[int, ...]) -> Array:
        starts = [i * v.dilation for i, v in zip(tap, windows, strict=True)]
        cuts = (slice(b, b + r, v.stride) for b, r, v in zip(starts, reach, windows, strict=True))
        return padded[(slice(None), *cuts)]

    return places


def _kept(x: Array) -> Array:
    """The same values, computed once and for all: XLA would compute them again within the sum of each tap.

    It does so through a barrier as well, but not through zeros put after them.
    """
    padded = lax.optimization_barrier(pad_spatial(x, [(0, 1, 0)] * (x.ndim - 2)))
    return padded[(slice(None), *(slice(size) for size in x.shape[1:-1]))]


def pad_spatial(x: Array, ends: Sequence[tuple[Any, Any, int]]) -> Array:
    """Zeros before, after and between the entries of each spatial axis; negative numbers cut."""
    if all(end == (0, 0, 0) for end in ends):
        return x
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *ends, (0, 0, 0)])


def _accumulated(*arrays: Array) -> tuple[Array, ...]:
    return tuple(a.astype(jnp.float32) if a.dtype.itemsize < 4 else a for a in arrays)


VARIANTS = {"xla": xla, "reference": reference}
