"""Fused operators of `com.microsoft`, which onnxruntime's optimiser and exporters of language models write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError, UnsupportedModelError
from modeldiff_jax.models.graph.registry import Index
from modeldiff_jax.models.graph.values import Value, astype, axis_index, in_float32, widened
from modeldiff_jax.models.onnx.ops import activation, conv, math, nn
from modeldiff_jax.models.onnx.ops.common import MICROSOFT
from modeldiff_jax.models.onnx.registration import op

_EPSILON = float(np.float32(1e-12))

# name -> function of x and the parameters of the activation, with the defaults of the operator
_ACTIVATIONS: dict[str, Callable[..., Value]] = {
    "Relu": lambda x: jax.nn.relu(x),
    "Sigmoid": lambda x: jax.nn.sigmoid(x),
    "Tanh": lambda x: jnp.tanh(x),
    "Softplus": lambda x: jax.nn.softplus(x),
    "Softsign": lambda x: x / (1 + jnp.abs(x)),
    "HardSwish": lambda x: activation.hard_swish(x),
    "LeakyRelu": lambda x, alpha=0.01: activation.leaky_relu(x, alpha),
    "Elu": lambda x, alpha=1.0: activation.elu(x, alpha),
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: activation.hard_sigmoid(x, alpha, beta),
    "Clip": lambda x, low=-np.inf, high=np.inf: jnp.clip(x, low, high),
}


def _activated(x: Value, name: str | None, parameters: Sequence[float]) -> Value:
    """Applies an activation that was fused with the operator before it."""
    if not name:
        return x
    if name not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"A fused activation is one of {', '.join(_ACTIVATIONS)}",
            got=name,
            fix="save the model without graph optimisation",
        )
    return _ACTIVATIONS[name](x, *parameters)


@op("FusedMatMul", domain=MICROSOFT)
def fused_matmul(
    a: Value,
    b: Value,
    /,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Value:
    """Returns alpha A B; `transBatch` moves the first axis behind the others of the batch."""

    def transposed(x: Value, matrix: int, batch: int) -> Value:
        if batch and x.ndim > 2:
            x = jnp.moveaxis(x, 0, -2)
        return jnp.swapaxes(x, -1, -2) if matrix and x.ndim > 1 else x

    product = math.accumulated_product(transposed(a, transA, transBatchA), transposed(b, transB, transBatchB))
    return astype(product if alpha == 1 else product * alpha, a.dtype)


@op("FusedConv", domain=MICROSOFT)
def fused_conv(
    x: Value,
    w: Value,
    b: Value = None,
    z: Value = None,
    /,
    *,
    activation: str | None = None,
    activation_params: Sequence[float] | None = None,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """Returns the convolution plus z, activated."""
    y = conv.conv(
        *(x, w, b),
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return _activated(y if z is None else y + z, activation, activation_params or ())


@op("FusedGemm", domain=MICROSOFT)
def fused_gemm(
    a: Value,
    b: Value,
    c: Value = None,
    /,
    *,
    activation: str | None = None,
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Value:
    """Returns alpha A B + beta C, activated."""
    parameters = [value for value in (activation_alpha, activation_beta, activation_gamma) if value is not None]
    y = math.gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)
    return _activated(y, activation, parameters)


@op("Gelu", domain=MICROSOFT)
@in_float32
def gelu(x: Value, /) -> Value:
    """Returns x times the normal distribution function of x."""
    return jax.nn.gelu(x, approximate=False)


@op("FastGelu", domain=MICROSOFT)
@in_float32
def fast_gelu(x: Value, bias: Value = None, /) -> Value:
    """Returns the tanh approximation of Gelu, of x + bias."""
    return jax.nn.gelu(x if bias is None else x + bias, approximate=True)


@op("BiasGelu", domain=MICROSOFT)
@in_float32
def bias_gelu(a: Value, b: Value, /) -> Value:
    """Returns the Gelu of a + b."""
    return gelu(a + b)


@op("QuickGelu", domain=MICROSOFT)
@in_float32
def quick_gelu(x: Value, /, *, alpha: float = float(np.float32(1.702))) -> Value:
    """Returns x sigmoid(alpha x)."""
    return x * jax.nn.sigmoid(alpha * x)


@op("BiasSplitGelu", domain=MICROSOFT)
@in_float32
def bias_split_gelu(x: Value, bias: Value, /) -> Value:
    """Returns the first half of x + bias times the Gelu of the second half."""
    first, second = jnp.split(x + bias, 2, -1)
    return first * gelu(second)


@op("BiasAdd", domain=MICROSOFT)
@in_float32
def bias_add(x: Value, bias: Value, skip: Value, /) -> Value:
    """Returns x + bias + skip."""
    return x + bias + skip


@op("BiasSoftmax", domain=MICROSOFT)
@in_float32
def bias_softmax(data: Value, bias: Value, /, *, is_inner_broadcast: int, axis: int = 1) -> Value:
    """Returns the softmax of data + bias over all axes from `axis` on; the bias broadcasts over inner or outer axes."""
    first = axis_index(axis, data.ndim)
    return jax.nn.softmax(data + bias, tuple(range(first, data.ndim)))


@op("SimplifiedLayerNormalization")
def simplified_layer_normalization(
    x: Value, scale: Value, /, *, axis: int = -1, epsilon: float = float(np.float32(1e-5)), stash_type: int = 1
) -> tuple[Value, Value]:
    """Returns x over its root mean square along the axes from `axis` on, and the inverse of the root mean square."""
    axes = tuple(range(axis_index(axis, x.ndim), x.ndim))
    wide = widened(x)
    inverse = 1 / jnp.sqrt((wide * wide).mean(axes, keepdims=True) + epsilon)
    return astype(wide * inverse, x.dtype) * astype(scale, x.dtype), inverse


@op("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(
    x: Value, skip: Value, gamma: Value, beta: Value = None, bias: Value = None, /, *, epsilon: float = _EPSILON
) -> tuple[Value, Value, Value, Value]:
    """Returns the layer normalisation of x + skip + bias, the mean, the inverse deviation, and the sum itself."""
    total = _added(x, skip, bias)
    y, mean, inverse = nn.layer_normalization(total, widened(gamma), widened(beta), epsilon=epsilon)
    return astype(y, x.dtype), mean, inverse, astype(total, x.dtype)


def _added(x: Value, skip: Value, bias: Value) -> Value:
    """Returns x + skip + bias, in float32 if they are narrower."""
    total = widened(x) + widened(skip)
    return total if bias is None else total + widened(bias)


@op("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_simplified_layer_normalization(
    x: Value, skip: Value, gamma: Value, bias: Value = None, /, *, epsilon: float = _EPSILON
) -> tuple[Value, Value, Value, Value]:
    """Returns x + skip + bias over its root mean square, 0 for the mean, the root's inverse, and the sum itself."""
    total = _added(x, skip, bias)
    y, inverse = simplified_layer_normalization(total, widened(gamma), epsilon=epsilon)
    return astype(y, x.dtype), jnp.zeros_like(inverse), inverse, astype(total, x.dtype)


@op("EmbedLayerNormalization", domain=MICROSOFT)
@in_float32
def embed_layer_normalization(
    input_ids: Value,
    segment_ids: Value,
    words: Value,
    positions: Value,
    segments: Value,
    gamma: Value,
    beta: Value,
    mask: Value = None,
    position_ids: Value = None,
    /,
    *,
    epsilon: float = _EPSILON,
    mask_index_type: int | None = None,
) -> tuple[Value, Value, Value]:
    """Returns the layer normalisation of the sum of three embeddings, the number of unmasked tokens, and the sum."""
    batch, length = input_ids.shape
    total = _rows(words, input_ids)
    total = total + (positions[:length] if position_ids is None else _rows(positions, position_ids))
    if segments is not None and segment_ids is not None:
        total = total + _rows(segments, segment_ids)
    y, _, _ = nn.layer_normalization(total, gamma, beta, epsilon=epsilon)
    counts = jnp.zeros(batch, np.int32) if mask is None else astype(jnp.asarray(mask), np.int32).sum(-1)
    return y, counts, total


def _rows(table: Value, indices: Value) -> Value:
    return jnp.take(jnp.asarray(table), jnp.asarray(indices), axis=0, mode="clip")


def unpacked(packed: Value, bits: int, length: Any) -> Value:
    """Unpacks unsigned numbers of `bits` bits along the last axis, the lowest bits of each byte first."""
    if bits not in (2, 4, 8):
        raise UnsupportedModelError("Weights have 2, 4 or 8 bits", got=f"{bits}")
    wide = astype(jnp.asarray(packed), np.int32)
    numbers = jnp.stack([(wide >> shift) & (2**bits - 1) for shift in range(0, 8, bits)], -1)
    return numbers.reshape(*packed.shape[:-1], -1)[..., :length]


@op("MatMulNBits", domain=MICROSOFT)
def matmul_nbits(
    a: Value,
    b: Value,
    scales: Value,
    zero_points: Value = None,
    g_idx: Value = None,
    bias: Value = None,
    /,
    *,
    K: int,
    N: int,
    block_size: int,
    bits: int = 4,
    accuracy_level: int = 0,
    weight_prepacked: int = 0,
) -> Value:
    """Returns A times the transpose of a matrix of a few bits, (N, blocks, bytes), with a scale for each block."""
    if weight_prepacked or min(K, N, block_size) < 1:
        raise UnsupportedModelError("Weights have the specified layout", got=f"prepacked {weight_prepacked}")
    blocks = -(-K // block_size)
    whole = unpacked(b.reshape(N, blocks, -1), bits, block_size)
    scale = jnp.asarray(scales).reshape(N, blocks, 1)
    zero: Value = 2 ** (bits - 1)
    if zero_points is not None and np.dtype(zero_points.dtype) == np.uint8:
        zero = unpacked(zero_points.reshape(N, -1), bits, blocks)[..., None]
    elif zero_points is not None:
        zero = zero_points.reshape(N, blocks, 1)
    if g_idx is not None:  # the block of each column
        index = astype(jnp.asarray(g_idx), np.int32)[None, :K]
        scale = jnp.take_along_axis(scale[..., 0], index, 1)
        zero = jnp.take_along_axis(zero[..., 0], index, 1) if isinstance(zero, jax.Array) else zero
        weights = (whole.reshape(N, -1)[:, :K] - zero) * scale
    else:
        weights = ((whole - zero) * scale).reshape(N, -1)[:, :K]
    y = math.accumulated_product(a, astype(weights, a.dtype).T)
    return astype(y if bias is None else y + bias, a.dtype)


@op("GatherBlockQuantized", domain=MICROSOFT)
def gather_block_quantized(
    data: Value,
    indices: Index,
    scales: Value,
    zero_points: Value = None,
    /,
    *,
    bits: int = 4,
    block_size: int = 128,
    gather_axis: int = 0,
    quantize_axis: int = 1,
) -> Value:
    """Returns slices of a table of a few bits, with a scale for each block along `quantize_axis`, as floats."""
    zero: Value = 0
    if np.dtype(data.dtype) == np.uint8:
        zero = 2 ** (bits - 1)
        data = unpacked(data, bits, None)
        if zero_points is not None:
            zero = unpacked(zero_points, bits, scales.shape[-1])
    elif zero_points is not None:
        zero = zero_points
    block_axis = axis_index(quantize_axis, data.ndim)
    slice_axis = axis_index(gather_axis, data.ndim)
    if block_axis == slice_axis:
        raise InvalidInputError("Blocks and slices have different axes", got=f"both {block_axis}")

    def gathered(x: Value) -> Value:
        return jnp.take(jnp.asarray(x), jnp.asarray(indices), axis=slice_axis)

    whole = astype(gathered(data), np.float32)
    result_axis = block_axis + (np.ndim(indices) - 1 if block_axis > slice_axis else 0)

    def repeated(x: Value) -> Value:
        blocks = jnp.repeat(astype(gathered(x), np.float32), block_size, result_axis)
        return blocks[tuple(slice(0, n) for n in whole.shape)]

    return astype((whole - (repeated(zero) if np.ndim(zero) else zero)) * repeated(scales), scales.dtype)
