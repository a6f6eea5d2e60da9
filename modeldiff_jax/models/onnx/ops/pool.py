"""Pooling: converts ONNX's attributes to the windows of `kernels.pooling`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import pooling
from modeldiff_jax.kernels.pooling import PoolingWindow, pooling_window
from modeldiff_jax.limits import check_made
from modeldiff_jax.models.graph.registry import Index, Static
from modeldiff_jax.models.graph.values import Value, astype, sizes
from modeldiff_jax.models.graph.windows import check_windows
from modeldiff_jax.models.onnx.registration import op


def pooling_windows(
    x: Value,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
    ceil_mode: int,
) -> tuple[PoolingWindow, ...]:
    """Returns the windows of each spatial axis of (N, C, spatial...)."""
    n = x.ndim - 2
    strides, dilations, pads = strides or (1,) * n, dilations or (1,) * n, pads or (0,) * (2 * n)
    if not (len(kernel_shape) == len(strides) == len(dilations) == n and len(pads) == 2 * n):
        raise InvalidInputError(
            "A pooling window has a size, stride and dilation for each axis",
            got=f"{kernel_shape}, {strides}, {dilations}",
        )
    if auto_pad not in ("NOTSET", "", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise InvalidInputError("auto_pad is NOTSET, VALID, SAME_UPPER or SAME_LOWER", got=auto_pad)
    ceil = ceil_mode == 1 and auto_pad in ("NOTSET", "")  # only 1 counts, as in onnx's shape inference
    windows = []
    for i, (size, taps, stride, dilation) in enumerate(zip(x.shape[2:], kernel_shape, strides, dilations, strict=True)):
        before, after = _padding(size, taps, stride, dilation, pads[i], pads[n + i], auto_pad)
        window = pooling_window(size, taps, stride=stride, dilation=dilation, before=before, after=after, ceil=ceil)
        windows.append(window)
    padding, outputs = [(w.before, w.after + w.beyond) for w in windows], [w.outputs for w in windows]
    check_windows(x.shape, padding, (*x.shape[:2], *outputs), math.prod(kernel_shape))
    return tuple(windows)


def _padding(
    size: Any, taps: int, stride: int, dilation: int, before: int, after: int, auto_pad: str
) -> tuple[Any, Any]:
    """Returns the padding before and after an axis."""
    if auto_pad == "VALID":
        return 0, 0
    if auto_pad in ("NOTSET", ""):
        return before, after
    if stride < 1:
        raise InvalidInputError("Strides are positive", got=f"{stride}")
    total = max((-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
    return (total // 2, total - total // 2) if auto_pad == "SAME_UPPER" else (total - total // 2, total // 2)


@op("MaxPool")
def max_pool(
    x: Value,
    /,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    storage_order: int = 0,
    n_outputs: int = 1,
) -> Value:
    """Returns the largest entry of each window and, as a second output, its index in the flat tensor."""
    x = jnp.asarray(x)
    windows = pooling_windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    largest = pooling.max_pool(x, windows)
    if n_outputs == 1:
        return largest
    check_made((*largest.shape, math.prod(kernel_shape)))
    indices = pooling.max_pool_indices(x, largest, windows, column_major=bool(storage_order))
    return largest, astype(indices, np.int64)


@op("AveragePool")
def average_pool(
    x: Value,
    /,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> Value:
    """Returns the mean of each window; padding counts with `count_include_pad`, entries beyond the padding never."""
    x = jnp.asarray(x)
    windows = pooling_windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    return pooling.average_pool(x, windows, count_padding=bool(count_include_pad))


def _lp_pool(
    x: Value,
    p: float,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
    ceil_mode: int,
) -> Value:
    x = jnp.asarray(x)
    if p <= 0:
        raise InvalidInputError("The norm of a pool has a positive p", got=f"{p}")
    return pooling.lp_pool(x, pooling_windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode), p)


@op("LpPool")
def lp_pool_1(
    x: Value,
    /,
    *,
    kernel_shape: Sequence[int],
    p: float = 2.0,
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
) -> Value:
    """Returns the p-norm of each window."""
    return _lp_pool(x, p, kernel_shape, strides, None, pads, auto_pad, 0)


@op("LpPool", since=2)
def lp_pool(
    x: Value,
    /,
    *,
    kernel_shape: Sequence[int],
    p: int = 2,
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> Value:
    """Returns the p-norm of each window."""
    return _lp_pool(x, p, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)


@op("GlobalAveragePool")
def global_average_pool(x: Value, /) -> Value:
    """Returns the mean of each channel."""
    return pooling.global_average_pool(jnp.asarray(x))


@op("GlobalMaxPool")
def global_max_pool(x: Value, /) -> Value:
    """Returns the largest entry of each channel."""
    return pooling.global_max_pool(jnp.asarray(x))


@op("GlobalLpPool")
def global_lp_pool(x: Value, /, *, p: int = 2) -> Value:
    """Returns the p-norm of each channel."""
    return pooling.global_lp_pool(jnp.asarray(x), p)


@op("MaxUnpool")
def max_unpool(
    x: Value,
    indices: Index,
    output_shape: Static = None,
    /,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
) -> Value:
    """Writes values to the indices that MaxPool returned, and zeros elsewhere."""
    n = x.ndim - 2
    strides, pads = strides or (1,) * n, pads or (0,) * (2 * n)
    natural = x.shape[:2] + tuple(
        (x.shape[2 + i] - 1) * strides[i] + kernel_shape[i] - pads[i] - pads[n + i] for i in range(n)
    )
    shape = natural if output_shape is None else sizes(output_shape)
    check_made(natural)
    check_made(shape)
    total = math.prod(natural)
    flat_indices = jnp.ravel(jnp.where(indices < 0, total, indices))  # a window of padding alone has index -1
    y = jnp.zeros(total, x.dtype).at[flat_indices].set(jnp.ravel(x), mode="drop").reshape(natural)
    if output_shape is None:
        return y
    return jnp.zeros(shape, x.dtype).at[tuple(slice(0, d) for d in natural)].set(y)
