"""Normalisation layers, and Dropout, which drops nothing in a trained model."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import UnsupportedModelError
from modeldiff_jax.limits import check_written_out
from modeldiff_jax.models.graph.registry import Static
from modeldiff_jax.models.graph.values import (
    Value,
    astype,
    axis_index,
    axis_indices,
    concrete,
    in_float32,
    known,
    widened,
    xp,
)
from modeldiff_jax.models.graph.windows import check_windows
from modeldiff_jax.models.onnx.ops.common import element_type
from modeldiff_jax.models.onnx.registration import op

_EPSILON = float(np.float32(1e-5))
_MOMENTUM = float(np.float32(0.9))


def _per_channel(values: Value, rank: int) -> Value:
    """Reshapes a vector over the channels to broadcast against (batch, channel, ...)."""
    return values.reshape((1, -1) + (1,) * (rank - 2)) if rank > 1 else values


@in_float32
def _batch_norm(x: Value, scale: Value, bias: Value, mean: Value, variance: Value, epsilon: float) -> Value:
    if mean.ndim > 1:  # `spatial` 0: statistics per position as well as per channel
        return (x - mean) / xp(variance).sqrt(variance + epsilon) * scale + bias
    factor = scale / xp(variance).sqrt(variance + epsilon)
    shift = bias - mean * factor
    if concrete(x) or x.ndim < 3:
        return astype(x * _per_channel(factor, x.ndim) + _per_channel(shift, x.ndim), x.dtype)
    # channels last, as convolutions return and read them
    return jnp.moveaxis(astype(jnp.moveaxis(x, 1, -1) * factor + shift, x.dtype), -1, 1)


@op("BatchNormalization")
def batch_normalization_1(
    x: Value,
    scale: Value,
    bias: Value,
    mean: Value,
    variance: Value,
    /,
    *,
    epsilon: float = _EPSILON,
    momentum: float = _MOMENTUM,
    is_test: int = 0,
    spatial: int = 1,
    consumed_inputs: Sequence[int] | None = None,
) -> Value:
    """Normalises with stored statistics."""
    return _batch_norm(x, scale, bias, mean, variance, epsilon)


@op("BatchNormalization", since=7)
def batch_normalization_7(
    x: Value,
    scale: Value,
    bias: Value,
    mean: Value,
    variance: Value,
    /,
    *,
    epsilon: float = _EPSILON,
    momentum: float = _MOMENTUM,
    spatial: int = 1,
) -> Value:
    """Normalises with stored statistics."""
    return _batch_norm(x, scale, bias, mean, variance, epsilon)


@op("BatchNormalization", since=14)
def batch_normalization(
    x: Value,
    scale: Value,
    bias: Value,
    mean: Value,
    variance: Value,
    /,
    *,
    epsilon: float = _EPSILON,
    momentum: float = _MOMENTUM,
    training_mode: int = 0,
) -> Value:
    """Normalises with stored statistics; in training mode with the batch's, and returns the running statistics too."""
    if training_mode != 1:
        return _batch_norm(x, scale, bias, mean, variance, epsilon)
    axes = tuple(i for i in range(x.ndim) if i != 1)
    wide = widened(x)
    batch_mean, batch_variance = wide.mean(axes), wide.var(axes)
    y = _batch_norm(x, scale, bias, batch_mean, batch_variance, epsilon)
    return (
        y,
        astype(widened(mean) * momentum + batch_mean * (1 - momentum), mean.dtype),
        astype(widened(variance) * momentum + batch_variance * (1 - momentum), variance.dtype),
    )


def _standardise(x: Value, axes: tuple[int, ...], epsilon: float) -> tuple[Value, Value, Value]:
    """Returns x shifted and scaled to mean 0 and variance 1 over `axes`, the mean, and the inverse deviation."""
    mean = x.mean(axes, keepdims=True)
    centred = x - mean
    inverse = 1 / xp(x).sqrt((centred * centred).mean(axes, keepdims=True) + epsilon)
    return centred * inverse, mean, inverse


@op("InstanceNormalization")
def instance_normalization_1(
    x: Value,
    scale: Value,
    bias: Value,
    /,
    *,
    epsilon: float = _EPSILON,
    consumed_inputs: Sequence[int] | None = None,
) -> Value:
    """Normalises each channel of each example over its positions."""
    return instance_normalization(x, scale, bias, epsilon=epsilon)


@op("InstanceNormalization", since=6)
@in_float32
def instance_normalization(x: Value, scale: Value, bias: Value, /, *, epsilon: float = _EPSILON) -> Value:
    """Normalises each channel of each example over its positions."""
    y, _, _ = _standardise(x, tuple(range(2, x.ndim)), epsilon)
    return y * _per_channel(scale, x.ndim) + _per_channel(bias, x.ndim)


@op("LayerNormalization")
def layer_normalization(
    x: Value,
    scale: Value,
    bias: Value = None,
    /,
    *,
    axis: int = -1,
    epsilon: float = _EPSILON,
    stash_type: int = 1,
) -> tuple[Value, Value, Value]:
    """Normalises over the axes from `axis` on; also returns the mean and the inverse deviation (Ba et al. 2016)."""
    axes = tuple(range(axis_index(axis, x.ndim), x.ndim))
    y, mean, inverse = _standardise(_stashed(x, stash_type), axes, epsilon)
    y = astype(y, x.dtype) * scale
    stash = element_type(stash_type)
    return (y if bias is None else y + bias), astype(mean, stash), astype(inverse, stash)


def _stashed(x: Value, stash_type: int) -> Value:
    return astype(x, np.float32) if stash_type == 1 and x.dtype.itemsize < 4 else x


@op("RMSNormalization")
def rms_normalization(
    x: Value, scale: Value, /, *, axis: int = -1, epsilon: float = _EPSILON, stash_type: int = 1
) -> Value:
    """Divides x by its root mean square over the axes from `axis` on (Zhang and Sennrich 2019)."""
    axes = tuple(range(axis_index(axis, x.ndim), x.ndim))
    wide = _stashed(x, stash_type)
    inverse = 1 / xp(x).sqrt((wide * wide).mean(axes, keepdims=True) + epsilon)
    return astype(wide * inverse, x.dtype) * scale


def _group_norm(x: Value, groups: int, epsilon: float, stash_type: int) -> Value:
    grouped = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    y, _, _ = _standardise(_stashed(grouped, stash_type), tuple(range(2, grouped.ndim)), epsilon)
    return astype(y, x.dtype)


@op("GroupNormalization")
def group_normalization_18(
    x: Value, scale: Value, bias: Value, /, *, num_groups: int, epsilon: float = _EPSILON
) -> Value:
    """Normalises groups of channels, with scale and bias per group."""
    y = _group_norm(x, num_groups, epsilon, 1)
    return (y * _per_channel(scale, y.ndim) + _per_channel(bias, y.ndim)).reshape(x.shape)


@op("GroupNormalization", since=21)
def group_normalization(
    x: Value, scale: Value, bias: Value, /, *, num_groups: int, epsilon: float = _EPSILON, stash_type: int = 1
) -> Value:
    """Normalises groups of channels, with scale and bias per channel (Wu and He 2018)."""
    y = _group_norm(x, num_groups, epsilon, stash_type).reshape(x.shape)
    return y * _per_channel(scale, x.ndim) + _per_channel(bias, x.ndim)


@op("MeanVarianceNormalization")
@in_float32
def mean_variance_normalization(x: Value, /, *, axes: Sequence[int] = (0, 2, 3)) -> Value:
    """Returns (x - mean) / (deviation + 1e-9), both over the axes."""
    axes = axis_indices(axes, x.ndim)
    centred = x - x.mean(axes, keepdims=True)
    return centred / (xp(x).sqrt((centred * centred).mean(axes, keepdims=True)) + 1e-9)


@op("LpNormalization")
@in_float32
def lp_normalization(x: Value, /, *, axis: int = -1, p: int = 2) -> Value:
    """Divides x by its L1 or L2 norm along an axis; the result is 0 where the norm is 0."""
    axis = axis_index(axis, x.ndim)
    if p == 1:
        norm = jnp.abs(x).sum(axis, keepdims=True)
    else:
        squares = (x * x).sum(axis, keepdims=True)
        norm = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
    return jnp.where(norm > 0, x / jnp.where(norm > 0, norm, 1), 0)


@op("LRN")
@in_float32
def lrn(
    x: Value, /, *, size: int, alpha: float = float(np.float32(1e-4)), beta: float = 0.75, bias: float = 1.0
) -> Value:
    """Divides x by (bias + alpha / size * s) ** beta, s the sum of squares over `size` channels (Krizhevsky 2012)."""
    before, after = (min(n, x.shape[1]) for n in ((size - 1) // 2, size // 2))  # beyond the channels are zeros
    check_windows(x.shape, [(before, after)], x.shape, before + after + 1, first=1)
    check_written_out(before + after + 1)
    squares = xp(x).pad(x * x, [(0, 0), (before, after)] + [(0, 0)] * (x.ndim - 2))
    total = sum(squares[:, i : i + x.shape[1]] for i in range(before + after + 1))
    return astype(x / (bias + alpha / size * total) ** beta, x.dtype)


@op("Dropout")
def dropout_1(
    x: Value, /, *, ratio: float = 0.5, is_test: int = 0, consumed_inputs: Sequence[int] | None = None
) -> tuple[Value, Value]:
    """Returns x and a mask of ones in the type of x: a trained model drops nothing."""
    return x, xp(x).ones_like(x)


@op("Dropout", since=7)
def dropout_7(x: Value, /, *, ratio: float = 0.5) -> tuple[Value, Value]:
    """Returns x and a mask of true: a trained model drops nothing."""
    return x, xp(x).ones(x.shape, bool)


@op("Dropout", since=12)
def dropout(
    x: Value, ratio: Value = None, training_mode: Static = None, /, *, seed: int | None = None
) -> tuple[Value, Value]:
    """Returns x and a mask of true; training mode is refused, since it would make the outputs random."""
    drops = ratio is None or not known(ratio) or np.any(ratio)
    if training_mode is not None and np.any(training_mode) and drops:
        raise UnsupportedModelError(
            "Dropout must be in inference mode", got="training_mode true", fix="export the model for inference"
        )
    return x, xp(x).ones(x.shape, bool)
