"""Attention with its masks, caches of keys and values and rotary positions, and its recurrent forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.limits import check_written_out
from modeldiff_jax.models.graph.registry import Index
from modeldiff_jax.models.graph.values import HIGHEST, Value, astype, axis_index, in_float32, xp
from modeldiff_jax.models.onnx.ops.activation import softmax
from modeldiff_jax.models.onnx.ops.common import computing_in, element_type
from modeldiff_jax.models.onnx.ops.math import accumulated_product, matmul
from modeldiff_jax.models.onnx.registration import op
from modeldiff_jax.runtime import x64

_RAW, _CAPPED, _BIASED, _PROBABILITIES = range(4)  # values of `qk_matmul_output_mode`: the scores to return


def split_heads(x: Value, count: int | None) -> Value:
    """Reshapes (batch, length, heads * size) to (batch, heads, length, size)."""
    if x.ndim == 4:
        return x
    if count is None or count < 1 or x.ndim != 3 or x.shape[2] % count:
        raise InvalidInputError("Inputs of rank 3 divide into their heads", got=f"shape {x.shape}, {count} heads")
    return xp(x).swapaxes(x.reshape(*x.shape[:2], count, x.shape[2] // count), 1, 2)


def joined_heads(x: Value) -> Value:
    """Reshapes (batch, heads, length, size) to (batch, length, heads * size)."""
    y = xp(x).swapaxes(x, 1, 2)
    return y.reshape(*y.shape[:2], y.shape[2] * y.shape[3])


def _for_query_heads(x: Value, heads: int) -> Value:
    """Repeats each head of keys or values for the neighbouring query heads that share it."""
    if x.shape[1] == heads:
        return x
    if heads % x.shape[1]:
        raise InvalidInputError("Key heads divide the query heads", got=f"{x.shape[1]} of {heads}")
    return xp(x).repeat(x, heads // x.shape[1], axis=1)


def _bias(q: Value, length: int, mask: Value, past: Value, causal: int, window: tuple[int, int], valid: Value) -> Value:
    """Returns the summand of the scores of `length` keys: the mask, and -inf for keys that a query does not attend to.

    `past` is the number of keys before the first query, one for all examples or one for each.
    """
    m = xp(q, mask, past, valid)
    low = np.asarray(-np.inf, q.dtype)
    if mask is None:
        bias = m.zeros((1, 1), q.dtype)
    else:
        bias = m.where(mask, m.zeros((), q.dtype), low) if mask.dtype == bool else astype(mask, q.dtype)
        missing = length - bias.shape[-1]
        if missing > 0:
            bias = m.pad(bias, [(0, 0)] * (bias.ndim - 1) + [(0, missing)], constant_values=low)
    first_query = past if np.ndim(past) == 0 else past[:, None, None, None]
    distance = np.arange(length) - np.arange(q.shape[2])[:, None] - first_query
    allowed = np.ones((1, 1), bool)
    before, after = window
    if causal == 1:
        allowed = allowed & (distance <= 0)
    if before >= 0:
        allowed = allowed & (distance >= -before)
    if after >= 0:
        allowed = allowed & (distance <= after)
    if valid is not None:
        allowed = allowed & (np.arange(length) < valid.reshape(-1)[:, None, None, None])
    return m.where(allowed, bias, low)


def _root_of_scale(q: Value, scale: float | None) -> np.ndarray:
    """Returns the root of the scale, by which queries and keys are both multiplied to keep their products in range."""
    if scale is not None and scale < 0:
        raise InvalidInputError("The scale of attention is not negative", got=f"{scale}")
    return np.asarray(math.sqrt(1 / math.sqrt(q.shape[3]) if scale is None else scale), q.dtype)


def _softmax_type(number: int | None, default: Any) -> np.dtype[Any]:
    """Returns the type in which the softmax is computed, given its number in ONNX."""
    dtype = np.dtype(default) if number is None else element_type(number)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InvalidInputError("softmax_precision is a type of floats", got=dtype.name)
    return dtype


def _attention(
    q: Value,
    k: Value,
    v: Value,
    mask: Value,
    past_key: Value,
    past_value: Value,
    valid: Value,
    *,
    is_causal: int,
    kv_num_heads: int | None,
    q_num_heads: int | None,
    qk_matmul_output_mode: int,
    scale: float | None,
    softcap: float,
    softmax_precision: int | None,
    window: tuple[int, int] = (-1, -1),
) -> tuple[Value, Value, Value, Value]:
    flat = q.ndim == 3
    q, k, v = split_heads(q, q_num_heads), split_heads(k, kv_num_heads), split_heads(v, kv_num_heads)
    past: Any = 0
    if past_key is not None:
        past = past_key.shape[2]
        k = xp(past_key, k).concatenate([past_key, k], 2)
        v = xp(past_value, v).concatenate([past_value, v], 2)
    elif valid is not None:
        past = valid.reshape(-1) - q.shape[2]
    keys, values = _for_query_heads(k, q.shape[1]), _for_query_heads(v, q.shape[1])
    m = xp(q, keys, mask, valid)
    factor = _root_of_scale(q, scale)
    scores = astype(matmul(q * factor, m.swapaxes(keys, 2, 3) * factor), q.dtype)
    returned_scores = scores
    if softcap > 0:
        scores = astype(m.tanh(scores / np.asarray(softcap, q.dtype)) * np.asarray(softcap, q.dtype), q.dtype)
    if qk_matmul_output_mode == _CAPPED:
        returned_scores = scores
    bias = _bias(q, k.shape[2], mask, past, is_causal, window, valid)
    scores = scores + bias
    if qk_matmul_output_mode == _BIASED:
        returned_scores = scores
    # a query without any key to attend to gets zeros, where the softmax would be NaN
    without_keys = m.max(bias, axis=-1, keepdims=True) == -np.inf
    wide = _softmax_type(softmax_precision, q.dtype)

    def softmaxed() -> Value:
        weights = softmax(m.where(without_keys, 0, astype(scores, wide)))
        return astype(m.where(without_keys, 0, weights), q.dtype)

    weights = computing_in(wide, (scores, without_keys), softmaxed)
    if qk_matmul_output_mode == _PROBABILITIES:
        returned_scores = weights
    y = astype(matmul(weights, values), v.dtype)
    return (joined_heads(y) if flat else y), k, v, returned_scores


@op("Attention")
def attention(
    q: Value,
    k: Value,
    v: Value,
    mask: Value = None,
    past_key: Value = None,
    past_value: Value = None,
    valid: Index = None,
    /,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> tuple[Value, Value, Value, Value]:
    """Returns softmax(q k' / sqrt(size) + mask) v by head, all keys and values (past ones first), and the scores."""
    return _attention(
        q,
        k,
        v,
        mask,
        past_key,
        past_value,
        valid,
        is_causal=is_causal,
        kv_num_heads=kv_num_heads,
        q_num_heads=q_num_heads,
        qk_matmul_output_mode=qk_matmul_output_mode,
        scale=scale,
        softcap=softcap,
        softmax_precision=softmax_precision,
    )


@op("Attention", since=25)
def attention_25(
    q: Value,
    k: Value,
    v: Value,
    mask: Value = None,
    past_key: Value = None,
    past_value: Value = None,
    valid: Index = None,
    /,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> tuple[Value, Value, Value, Value]:
    """Computes attention, in which a query attends only to keys within a window around its position."""
    return _attention(
        q,
        k,
        v,
        mask,
        past_key,
        past_value,
        valid,
        is_causal=is_causal,
        kv_num_heads=kv_num_heads,
        q_num_heads=q_num_heads,
        qk_matmul_output_mode=qk_matmul_output_mode,
        scale=scale,
        softcap=softcap,
        softmax_precision=softmax_precision,
        window=(left_window_size, right_window_size),
    )


@op("FlexAttention", domain="ai.onnx.preview")
def flex_attention(
    q: Value,
    k: Value,
    v: Value,
    /,
    *,
    prob_mod: Callable[..., tuple[Value, ...]] | None = None,
    scale: float | None = None,
    score_mod: Callable[..., tuple[Value, ...]] | None = None,
    softmax_precision: int | None = None,
) -> Value:
    """Computes attention with scores and probabilities modified by subgraphs of the node."""
    factor = _root_of_scale(q, scale)
    wide = _softmax_type(softmax_precision, np.promote_types(q.dtype, np.float32))

    def attended() -> Value:
        keys, values = _for_query_heads(k, q.shape[1]), _for_query_heads(v, q.shape[1])
        scores = astype(accumulated_product(q * factor, xp(keys).swapaxes(keys, 2, 3) * factor), wide)
        if score_mod is not None:
            scores = astype(score_mod(scores)[0], wide)
        weights = softmax(scores)
        if prob_mod is not None:
            weights = astype(prob_mod(weights)[0], wide)
        return astype(matmul(weights, astype(values, wide)), v.dtype)

    # the subgraphs may read any value, so if 64 bits are needed the whole is traced, even with known inputs
    return x64.in_64_bits(attended) if x64.is_64_bit(wide) or x64.is_64_bit(q.dtype) else attended()


def rotated(x: Value, cosines: Value, sines: Value, interleaved: bool) -> Value:
    """Returns (batch, heads, length, size) with the first pairs of entries of each head rotated, one for each angle."""
    m, half = xp(x, cosines, sines), cosines.shape[-1]
    first, unchanged = x[..., : 2 * half], x[..., 2 * half :]
    a, b = (first[..., 0::2], first[..., 1::2]) if interleaved else (first[..., :half], first[..., half:])
    real, imaginary = cosines * a - sines * b, sines * a + cosines * b
    pairs = m.stack([real, imaginary], -1) if interleaved else m.concatenate([real, imaginary], -1)
    return m.concatenate([pairs.reshape(first.shape), unchanged], -1)


@op("RotaryEmbedding")
@in_float32
def rotary_embedding(
    x: Value,
    cosines: Value,
    sines: Value,
    positions: Index = None,
    /,
    *,
    interleaved: int = 0,
    num_heads: int | None = None,
    rotary_embedding_dim: int = 0,
) -> Value:
    """Rotates pairs of each head's entries by an angle that grows with the position of the token (Su et al. 2021)."""
    heads = split_heads(x, num_heads)
    m = xp(x, cosines, sines, positions)
    if positions is not None:
        cosines, sines = m.asarray(cosines)[positions], m.asarray(sines)[positions]
    cosines, sines = cosines[:, None], sines[:, None]  # (batch, 1, length, half)
    if rotary_embedding_dim not in (0, 2 * cosines.shape[-1]):
        raise InvalidInputError(
            "There is an angle for each two entries that are rotated",
            got=f"{cosines.shape[-1]} angles, rotary_embedding_dim {rotary_embedding_dim}",
        )
    y = rotated(heads, cosines, sines, interleaved == 1)
    return joined_heads(y) if x.ndim == 3 else y


_GATED, _DELTA = ("gated", "gated_delta"), ("delta", "gated_delta")


@op("LinearAttention")
def linear_attention(
    query: Value,
    key: Value,
    value: Value,
    past_state: Value = None,
    decay: Value = None,
    beta: Value = None,
    /,
    *,
    chunk_size: int = 64,
    kv_num_heads: int,
    q_num_heads: int,
    scale: float = 0.0,
    update_rule: str = "gated_delta",
) -> tuple[Value, Value]:
    """Reads a state of outer products of keys and values with each query; `update_rule` chooses how it changes."""
    if update_rule not in ("linear", *_GATED, *_DELTA):
        raise InvalidInputError("update_rule is linear, gated, delta or gated_delta", got=update_rule)
    if (decay is not None) != (update_rule in _GATED) or (beta is not None) != (update_rule in _DELTA):
        raise InvalidInputError("Gated rules take a decay, delta rules a beta", got=update_rule)
    wide = jnp.promote_types(query.dtype, np.float32)
    q, k, v = (
        jnp.asarray(split_heads(x, n), wide)
        for x, n in ((query, q_num_heads), (key, kv_num_heads), (value, kv_num_heads))
    )
    start = jnp.zeros((*k.shape[:2], k.shape[3], v.shape[3])) if past_state is None else past_state
    factor = scale or 1 / math.sqrt(q.shape[3])
    steps = {"q": q, "k": k, "v": v}
    if decay is not None:
        steps["decay"] = split_heads(decay, kv_num_heads)
    if beta is not None:
        steps["beta"] = split_heads(beta, beta.shape[2])

    def step(state: Value, inputs: dict[str, Value]) -> tuple[Value, Value]:
        k, v = inputs["k"], inputs["v"]
        if "decay" in inputs:
            state = state * jnp.exp(inputs["decay"])[..., None]
        if "beta" in inputs:
            v = inputs["beta"] * (v - jnp.einsum("bhdm,bhd->bhm", state, k, precision=HIGHEST))
        state = state + k[..., None] * v[..., None, :]
        states = _for_query_heads(state, q_num_heads)
        return state, factor * jnp.einsum("bhd,bhdm->bhm", inputs["q"], states, precision=HIGHEST)

    last, rows = jax.lax.scan(
        step,
        jnp.asarray(start, wide),
        {name: jnp.moveaxis(jnp.asarray(x, wide), 2, 0) for name, x in steps.items()},
    )
    state_type = query.dtype if past_state is None else past_state.dtype
    return astype(joined_heads(jnp.moveaxis(rows, 0, 2)), query.dtype), astype(last, state_type)


@op("CausalConvWithState")
def causal_conv_with_state(
    x: Value, w: Value, b: Value = None, past_state: Value = None, /, *, activation: str = "none"
) -> tuple[Value, Value]:
    """Convolves each channel with its filter over previous steps; also returns the last steps for the next call."""
    if activation not in ("none", "silu", "swish"):
        raise InvalidInputError("The activation is none, silu or swish", got=activation)
    m, taps = xp(x, w, b, past_state), w.shape[2]
    check_written_out(taps)
    before = m.zeros((*x.shape[:2], taps - 1), x.dtype) if past_state is None else past_state
    whole = m.concatenate([before, x], 2)
    length = x.shape[2]
    wide_type = jnp.promote_types(x.dtype, np.float32)
    wide, filters = astype(whole, wide_type), astype(w, wide_type)
    y = sum(wide[:, :, i : i + length] * filters[:, 0, i, None] for i in range(taps))
    y = astype(y if b is None else y + astype(b, wide_type)[:, None], x.dtype)
    if activation != "none":
        y = astype(y, wide_type)
        y = astype(y / (1 + m.exp(-y)), x.dtype)
    return y, whole[:, :, whole.shape[2] - (taps - 1) :]


@op("TensorScatter")
def tensor_scatter(
    cache: Value, update: Value, starts: Index = None, /, *, axis: int = -2, mode: str = "linear"
) -> Value:
    """Writes each example's update into a cache along `axis` from its start on; `circular` continues at index 0."""
    if mode not in ("linear", "circular"):
        raise InvalidInputError("TensorScatter's mode is linear or circular", got=mode)
    axis, m = axis_index(axis, cache.ndim), xp(cache, update, starts)
    size, length = cache.shape[axis], update.shape[axis]
    first = np.zeros(cache.shape[0], np.int64) if starts is None else starts
    positions = first[:, None] + np.arange(length)
    if mode == "circular":
        positions = positions % size
    # as a gather: the update, if any, that each position of the cache takes
    source = np.arange(size)[None, :, None] == positions[:, None, :]
    shape = (cache.shape[0],) + (1,) * (axis - 1) + (size,) + (1,) * (cache.ndim - axis - 1)
    index = m.argmax(source, axis=2).reshape(shape)
    return m.where(source.any(2).reshape(shape), m.take_along_axis(update, index, axis), cache)
