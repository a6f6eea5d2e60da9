"""Resize and Upsample: converts ONNX's coordinates, roundings and sizes to the arguments of `kernels.resize`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.resize import interpolation_weights, resample
from modeldiff_jax.kernels.rounding import saturate
from modeldiff_jax.limits import check_made
from modeldiff_jax.models.graph.registry import Static
from modeldiff_jax.models.graph.values import Value, axis_indices, sizes
from modeldiff_jax.models.onnx.registration import op

_F32 = np.float32


@dataclass(frozen=True, slots=True)
class _Axis:
    """An axis: its sizes, its scale as the model gives it (not their ratio), and the region of interest along it."""

    size: int
    resized: int
    scale: float
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class _Sampling:
    """The attributes of Resize that determine which input entries an output entry reads, and their weights."""

    mode: str
    coordinates: str
    nearest: str
    cubic_a: float
    exclude_outside: int
    extrapolation: float
    antialias: int


def _source(axis: _Axis, coordinates: str) -> np.ndarray:
    """Returns the input coordinate of each output index, computed in float32 as other runtimes do."""
    i, scale, size, resized = np.arange(axis.resized, dtype=_F32), _F32(axis.scale), _F32(axis.size), axis.resized
    half = (i + _F32(0.5)) / scale - _F32(0.5)
    match coordinates:
        case "half_pixel":
            return half
        case "pytorch_half_pixel":
            return half if resized > 1 else np.zeros(resized, _F32)
        case "half_pixel_symmetric":
            adjustment = _F32(resized) / (scale * size)
            return size / _F32(2) * (_F32(1) - adjustment) + half
        case "asymmetric":
            return i / scale
        case "tf_half_pixel_for_nn":
            return (i + _F32(0.5)) / scale
        case "align_corners":
            return np.zeros(resized, _F32) if resized == 1 else i * (size - _F32(1)) / _F32(resized - 1)
        case "tf_crop_and_resize":
            start, end = _F32(axis.start), _F32(axis.end)
            if resized == 1:
                return np.full(1, _F32(0.5) * (start + end) * (size - _F32(1)))
            return start * (size - _F32(1)) + i * (end - start) * (size - _F32(1)) / _F32(resized - 1)
    raise InvalidInputError("Resize's coordinate transformation is one ONNX defines", got=coordinates)


_ROUNDING: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "round_prefer_floor": lambda x, scale: np.ceil(x - _F32(0.5)),
    "round_prefer_ceil": lambda x, scale: np.floor(x + _F32(0.5)),
    "floor": lambda x, scale: np.floor(x),
    "ceil": lambda x, scale: np.ceil(x),
    # opset 10 does not define the rounding; this is onnxruntime's
    "simple": lambda x, scale: np.ceil(x) if scale < 1 else np.floor(x),
}


def _nearest(axis: _Axis, sampling: _Sampling) -> np.ndarray:
    if sampling.nearest not in _ROUNDING:
        raise InvalidInputError("Resize's nearest mode is one ONNX defines", got=sampling.nearest)
    indices = _ROUNDING[sampling.nearest](_source(axis, sampling.coordinates), axis.scale)
    return np.clip(indices, 0, axis.size - 1).astype(np.int64)


def _outside(axis: _Axis) -> np.ndarray:
    coordinates = _source(axis, "tf_crop_and_resize")
    return (coordinates < 0) | (coordinates > axis.size - 1)


def _indices_or_weights(axis: _Axis, sampling: _Sampling) -> np.ndarray:
    """Returns the argument of `resample` for an axis: indices for nearest sampling, or the weights of all entries."""
    if sampling.mode == "nearest":
        return _nearest(axis, sampling)
    return interpolation_weights(
        _source(axis, sampling.coordinates),
        axis.size,
        method="linear" if sampling.mode == "linear" else "cubic",
        widening=1 / min(axis.scale, 1.0) if sampling.antialias else 1.0,
        cubic_coefficient=sampling.cubic_a,
        exclude_outside=bool(sampling.exclude_outside),
    )


def _resize(x: Value, axes: dict[int, _Axis], sampling: _Sampling) -> Value:
    if sampling.mode not in ("nearest", "linear", "cubic"):
        raise InvalidInputError("Resize's mode is nearest, linear or cubic", got=sampling.mode)
    cropped = sampling.coordinates == "tf_crop_and_resize"
    changed = {i: axis for i, axis in axes.items() if cropped or axis.size != axis.resized or axis.scale != 1}
    check_made([changed[i].resized if i in changed else dim for i, dim in enumerate(x.shape)])
    y = resample(jnp.asarray(x), {i: _indices_or_weights(axis, sampling) for i, axis in changed.items()})
    if cropped:
        for i, axis in changed.items():
            outside = _outside(axis).reshape((-1,) + (1,) * (y.ndim - 1 - i))
            y = jnp.where(outside, jnp.asarray(sampling.extrapolation, y.dtype), y)
    return y if y.dtype == x.dtype else _as_integers(y, x.dtype, sampling)


def _as_integers(y: Value, dtype: Any, sampling: _Sampling) -> Value:
    """Returns interpolated values as integers: linear ones truncated, as in onnxruntime, others rounded and saturated.

    The specification does not define it. onnxruntime's weights need not add up to 1, which makes some areas of one
    value darker; these do.
    """
    return y.astype(dtype) if sampling.mode == "linear" and not sampling.antialias else saturate(jnp.rint(y), dtype)


def _scaled(x: Value, axes: Sequence[int], scales: Sequence[float], roi: Sequence[float] = ()) -> dict[int, _Axis]:
    if len(scales) != len(axes) or min(scales, default=1) <= 0:
        raise InvalidInputError("Resize needs a positive scale for each axis", got=f"{list(scales)}")
    bounds = list(roi) or [0.0] * len(axes) + [1.0] * len(axes)
    changed = {}
    for i, (axis, scale) in enumerate(zip(axes, scales, strict=True)):
        start, end = bounds[i], bounds[len(axes) + i]
        if scale == 1 and (start, end) == (0, 1):
            continue  # also an axis of symbolic size
        resized = _F32(x.shape[axis]) * _F32(end - start) * _F32(scale)  # in float32, where 9 * (13 / 9) is 13
        changed[axis] = _Axis(x.shape[axis], int(np.floor(resized)), scale, start, end)
    return changed


def _sized(
    x: Value, axes: Sequence[int], new_sizes: Sequence[Any], policy: str, roi: Sequence[float]
) -> dict[int, _Axis]:
    if len(new_sizes) != len(axes):
        raise InvalidInputError("Resize needs a size for each axis", got=f"{list(new_sizes)}")
    bounds = list(roi) or [0.0] * len(axes) + [1.0] * len(axes)
    if policy == "stretch":
        ratios = [
            1.0 if n is x.shape[a] or n == x.shape[a] else n / x.shape[a] for n, a in zip(new_sizes, axes, strict=True)
        ]
    else:
        extreme = {"not_larger": min, "not_smaller": max}.get(policy)
        if extreme is None:
            raise InvalidInputError("The policy is stretch, not_larger or not_smaller", got=policy)
        ratios = [extreme(n / x.shape[a] for n, a in zip(new_sizes, axes, strict=True))] * len(axes)
        new_sizes = [int(np.floor(r * x.shape[a] + 0.5)) for r, a in zip(ratios, axes, strict=True)]
    return {
        a: _Axis(x.shape[a], n, r, bounds[i], bounds[len(axes) + i])
        for i, (a, n, r) in enumerate(zip(axes, new_sizes, ratios, strict=True))
        if r != 1 or (bounds[i], bounds[len(axes) + i]) != (0, 1)
    }


@op("Resize", since=10)
def resize_10(x: Value, scales: Static, /, *, mode: str = "nearest") -> Value:
    """Resizes `x` by scales; output index i reads the input at i / scale."""
    sampling = _Sampling(mode, "asymmetric", "simple", -0.75, 0, 0.0, 0)
    return _resize(x, _scaled(x, range(x.ndim), np.ravel(scales).tolist()), sampling)


@op("Resize", since=11)
def resize(
    x: Value,
    roi: Static = None,
    scales: Static = None,
    new_sizes: Static = None,
    /,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Value:
    """Resizes `x` by scales or to sizes."""
    sampling = _Sampling(
        mode,
        coordinate_transformation_mode,
        nearest_mode,
        cubic_coeff_a,
        exclude_outside,
        extrapolation_value,
        antialias,
    )
    indices = range(x.ndim) if axes is None else axis_indices(axes, x.ndim)
    crop = coordinate_transformation_mode == "tf_crop_and_resize" and roi is not None
    bounds = np.ravel(roi).tolist() if crop else ()
    if new_sizes is not None and np.size(new_sizes):
        return _resize(x, _sized(x, indices, sizes(new_sizes), keep_aspect_ratio_policy, bounds), sampling)
    if scales is None:
        raise InvalidInputError("Resize needs scales or sizes", got="neither")
    return _resize(x, _scaled(x, indices, np.ravel(scales).tolist(), bounds), sampling)


def _upsample(x: Value, scales: Sequence[float], mode: str) -> Value:
    """Resizes as Upsample does, where "bilinear" is another name of "linear"."""
    sampling = _Sampling("linear" if mode == "bilinear" else mode, "asymmetric", "floor", -0.75, 0, 0.0, 0)
    return _resize(x, _scaled(x, range(x.ndim), scales), sampling)


@op("Upsample")
def upsample_1(x: Value, /, *, height_scale: float, width_scale: float, mode: str = "nearest") -> Value:
    """Enlarges `x` by scales."""
    return _upsample(x, (1.0, 1.0, height_scale, width_scale), mode)


@op("Upsample", since=7)
def upsample_7(x: Value, /, *, scales: Sequence[float], mode: str = "nearest") -> Value:
    """Enlarges `x` by scales."""
    return _upsample(x, scales, mode)


@op("Upsample", since=9)
def upsample(x: Value, scales: Static, /, *, mode: str = "nearest") -> Value:
    """Enlarges `x` by scales."""
    return _upsample(x, np.ravel(scales).tolist(), mode)
