"""Attention operators of `com.microsoft`, which onnxruntime's optimiser and exporters of transformers write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError, UnsupportedModelError
from modeldiff_jax.models.graph.registry import Index, Static
from modeldiff_jax.models.graph.values import HIGHEST, Value, astype, in_float32, is_narrow
from modeldiff_jax.models.onnx.ops import math
from modeldiff_jax.models.onnx.ops.attention import joined_heads, rotated, split_heads
from modeldiff_jax.models.onnx.ops.common import MICROSOFT
from modeldiff_jax.models.onnx.registration import op

_MASKED = -10000.0
_LEAST = float(np.finfo(np.float32).min)


def _refuse(operator: str, **options: Any) -> None:
    """Raises an error if options are used that onnxruntime itself does not implement on CPU."""
    used = [name for name, value in options.items() if value is not None and value != "NONE" and value != 0]
    if used:
        raise UnsupportedModelError(
            f"{operator} is implemented without some of its options", got=", ".join(used), fix="export without them"
        )


def _scaled(scale: float | None, size: int) -> float:
    return scale if scale else float(1 / np.sqrt(size))


def _scores(q: Value, k: Value, scale: float) -> Value:
    """Returns the products of all queries and keys in float32; q may have several heads for each head of k."""
    group = q.shape[1] // k.shape[1]
    grouped = q.reshape(q.shape[0], k.shape[1], group, *q.shape[2:])
    products = jnp.einsum("bhgsd,bhtd->bhgst", grouped, k, precision=HIGHEST, preferred_element_type=np.float32)
    return products.reshape(*q.shape[:3], k.shape[2]) * scale


def _mixed(shares: Value, v: Value) -> Value:
    group = shares.shape[1] // v.shape[1]
    grouped = astype(shares, v.dtype).reshape(v.shape[0], v.shape[1], group, *shares.shape[2:])
    wide = np.float32 if is_narrow(v) else None
    mixed = jnp.einsum("bhgst,bhtd->bhgsd", grouped, v, precision=HIGHEST, preferred_element_type=wide)
    return astype(mixed, v.dtype).reshape(v.shape[0], shares.shape[1], shares.shape[2], v.shape[3])


def _padding(mask: Value, batch: int, keys: int, fill: float) -> Value:
    """Returns the summand of the scores for a mask in any form, to broadcast over (batch, heads, queries, keys)."""
    mask = jnp.asarray(mask)
    if mask.ndim == 1:  # ends of the sequences, perhaps followed by their starts
        position = jnp.arange(keys)[None]
        real = position < mask[:batch, None]
        if mask.shape[0] == 2 * batch:
            real = real & (position >= mask[batch:, None])
        return jnp.where(real, 0.0, fill)[:, None, None]
    if mask.ndim > 3:
        raise UnsupportedModelError("A mask has at most three axes", got=f"shape {mask.shape}")
    summand = jnp.where(mask != 0, 0.0, fill)
    return summand[:, None, None] if mask.ndim == 2 else summand[:, None]


def _masked(
    scores: Value, mask: Value, attention_bias: Value, filter_value: float | None, unidirectional: int
) -> Value:
    """Returns scores (batch, heads, queries, keys) plus the mask and the bias.

    As in onnxruntime's kernel, causally masked scores get the smallest finite number instead of the other mask's value,
    and the bias is added to that: a bias of -inf hides a key more than causality does.
    """
    hidden: Value = np.float32(0)
    if mask is not None:
        fill = _MASKED if filter_value is None else filter_value
        hidden = _padding(mask, scores.shape[0], scores.shape[-1], fill)
    if unidirectional:  # the last query has the position of the last key
        queries, keys = scores.shape[-2:]
        later = np.arange(keys)[None] > np.arange(queries)[:, None] + (keys - queries)
        hidden = jnp.where(later, np.float32(_LEAST), hidden)
    return scores + hidden if attention_bias is None else scores + hidden + attention_bias


def _appended(past: Value, new: Value) -> Value:
    return new if past is None else jnp.concatenate([past, new], 2)


@op("Attention", domain=MICROSOFT)
def attention(
    x: Value,
    weights: Value,
    bias: Value = None,
    mask: Value = None,
    past: Value = None,
    attention_bias: Value = None,
    past_length: Value = None,
    /,
    *,
    num_heads: int,
    do_rotary: int | None = None,
    mask_filter_value: float | None = None,
    past_present_share_buffer: int | None = None,
    qkv_hidden_sizes: Sequence[int] | None = None,
    rotary_embedding_dim: int | None = None,
    scale: float | None = None,
    unidirectional: int = 0,
) -> tuple[Value, Value]:
    """Computes self-attention with its projection; also returns the keys and values for the next call."""
    _refuse("Attention", do_rotary=do_rotary, past_present_share_buffer=past_present_share_buffer)
    projected = math.matmul(x, weights)
    projected = projected if bias is None else projected + bias
    size = projected.shape[-1] // 3
    widths = list(qkv_hidden_sizes or (size, size, size))
    q, k, v = (split_heads(part, num_heads) for part in jnp.split(projected, np.cumsum(widths)[:2].tolist(), -1))
    if past is not None:
        k, v = _appended(past[0], k), _appended(past[1], v)
    scores = _scores(q, k, _scaled(scale, q.shape[-1]))
    scores = _masked(scores, mask, attention_bias, mask_filter_value, unidirectional)
    y = joined_heads(_mixed(jax.nn.softmax(scores), v))
    return y, (jnp.stack([k, v]) if k.shape == v.shape else None)


@op("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(
    query: Value,
    key: Value = None,
    value: Value = None,
    bias: Value = None,
    mask: Value = None,
    attention_bias: Value = None,
    past_key: Value = None,
    past_value: Value = None,
    past_length: Value = None,
    cache_indirection: Value = None,
    /,
    *,
    num_heads: int,
    mask_filter_value: float | None = None,
    scale: float | None = None,
    unidirectional: int = 0,
) -> tuple[Value, Value, Value]:
    """Computes attention of projected inputs; also returns the keys and values for the next call."""
    _refuse("MultiHeadAttention", cache_indirection=cache_indirection, past_sequence_length=past_length)
    if query.ndim == 5:  # (batch, length, heads, 3, size)
        query, key, value = (query[:, :, :, i].reshape(*query.shape[:2], -1) for i in range(3))
    elif key is not None and key.ndim == 5:
        key, value = (key[:, :, :, i].reshape(*key.shape[:2], -1) for i in range(2))
    if key is None or value is None:
        raise InvalidInputError("Attention has queries, keys and values", got="queries alone")
    if bias is not None:
        widths = [query.shape[-1], num_heads * key.shape[-1] if key.ndim == 4 else key.shape[-1]]
        for_q, for_k, for_v = jnp.split(bias, np.cumsum(widths).tolist())
        query = query + for_q
        key, value = (key + for_k, value + for_v) if key.ndim == 3 else (key, value)
    q = split_heads(query, num_heads)
    k, v = split_heads(key, num_heads), split_heads(value, num_heads)
    k, v = _appended(past_key, k), _appended(past_value, v)
    scores = _scores(q, k, _scaled(scale, q.shape[-1]))
    scores = _masked(scores, mask, attention_bias, mask_filter_value, unidirectional)
    return joined_heads(_mixed(jax.nn.softmax(scores), v)), k, v


def _rotated_at(x: Value, positions: Value, cos: Value, sin: Value, interleaved: bool) -> Value:
    """Rotates the first entries of (batch, heads, length, size) by the angles at `positions` (batch, length)."""
    c, s = (jnp.take(jnp.asarray(table), positions, axis=0, mode="clip")[:, None] for table in (cos, sin))
    return rotated(jnp.asarray(x), c, s, interleaved)


@op("RotaryEmbedding", domain=MICROSOFT)
@in_float32
def rotary_embedding(
    x: Value,
    position_ids: Index,
    cos: Value,
    sin: Value,
    /,
    *,
    interleaved: int | None = None,
    is_packed_batching: int | None = None,
    num_heads: int | None = None,
    rotary_embedding_dim: int | None = None,
    scale: float | None = None,
) -> Value:
    """Applies rotary positions (Su et al. 2021) to (batch, length, features) or (batch, heads, length, size)."""
    _refuse("RotaryEmbedding", is_packed_batching=is_packed_batching)
    heads = x
    if x.ndim == 3:
        heads = split_heads(x, num_heads if rotary_embedding_dim and num_heads else x.shape[-1] // (2 * cos.shape[-1]))
    positions = jnp.asarray(position_ids)
    if positions.ndim < 2:  # the first position of each sequence
        positions = positions.reshape(-1, 1) + jnp.arange(heads.shape[2])
    y = _rotated_at(heads, positions, cos, sin, interleaved == 1)
    return joined_heads(y) if x.ndim == 3 else y


@op("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention(
    query: Value,
    key: Value,
    value: Value,
    past_key: Value,
    past_value: Value,
    seqlens_k: Value,
    total_length: Static,
    cos: Value = None,
    sin: Value = None,
    position_ids: Index = None,
    attention_bias: Value = None,
    head_sink: Value = None,
    k_scale: Value = None,
    v_scale: Value = None,
    q_norm_weight: Value = None,
    k_norm_weight: Value = None,
    query_seqlens: Value = None,
    /,
    *,
    num_heads: int,
    kv_num_heads: int,
    causal: int = 1,
    do_rotary: int | None = None,
    k_norm_epsilon: float | None = None,
    k_quant_type: str = "NONE",
    kv_cache_bit_width: int | None = None,
    local_window_size: int = -1,
    q_norm_epsilon: float | None = None,
    qk_norm_epsilon: float = float(np.float32(1e-6)),
    qk_output: int = 0,
    rotary_interleaved: int | None = None,
    scale: float | None = None,
    sliding_window_cache: int = 0,
    smooth_softmax: int = -1,
    softcap: float | None = None,
    v_quant_type: str = "NONE",
) -> tuple[Value, Value, Value]:
    """Computes causal attention of several query heads to each key head; also returns the caches with new entries.

    `seqlens_k` holds, for each sequence, its length with the new positions, minus one.
    """
    _refuse(
        "GroupQueryAttention",
        k_quant_type=k_quant_type,
        v_quant_type=v_quant_type,
        kv_cache_bit_width=kv_cache_bit_width,
        qk_output=qk_output,
        sliding_window_cache=sliding_window_cache,
        **{"k_scale": k_scale, "v_scale": v_scale, "q_norm_weight": q_norm_weight, "k_norm_weight": k_norm_weight},
        query_seqlens=query_seqlens,
    )
    if key is None:
        size = query.shape[-1] // (num_heads + 2 * kv_num_heads)
        query, key, value = jnp.split(query, [num_heads * size, (num_heads + kv_num_heads) * size], -1)
    if kv_num_heads < 1 or num_heads % kv_num_heads:
        raise InvalidInputError("The query heads divide into the key heads", got=f"{num_heads} and {kv_num_heads}")
    q, k, v = split_heads(query, num_heads), split_heads(key, kv_num_heads), split_heads(value, kv_num_heads)
    new, total = q.shape[2], int(total_length.reshape(()))
    ends = jnp.asarray(seqlens_k).reshape(-1) + 1
    starts = jnp.zeros_like(ends) if new == total else ends - new
    new_positions = starts[:, None] + jnp.arange(new)  # (batch, new)
    if do_rotary:
        if cos is None or sin is None:
            raise InvalidInputError("Rotary positions need the tables of cosines and sines", got="none")
        angles_at = new_positions if position_ids is None else jnp.asarray(position_ids)
        q, k = (_rotated_at(x, angles_at, cos, sin, rotary_interleaved == 1) for x in (q, k))
    k, v = _written(past_key, k, starts, total), _written(past_value, v, starts, total)
    scores = _scores(q, k, _scaled(scale, q.shape[-1]))
    if softcap:
        scores = softcap * jnp.tanh(scores / softcap)
    if attention_bias is not None:
        bias = jnp.asarray(attention_bias)
        scores = scores + jnp.pad(bias, [(0, 0)] * 3 + [(0, k.shape[2] - bias.shape[3])])
    keys = jnp.arange(k.shape[2])
    if causal:
        allowed = keys <= new_positions[..., None]
    else:
        allowed = jnp.broadcast_to(keys < ends[:, None, None], (*new_positions.shape, keys.size))
    if local_window_size >= 0:
        allowed = allowed & (keys > new_positions[..., None] - local_window_size)
    scores = jnp.where(allowed[:, None], scores, -jnp.inf)
    if head_sink is not None or smooth_softmax > 0:  # one more score, of a key without a value
        sink = jnp.zeros(num_heads) if head_sink is None else jnp.asarray(head_sink)
        sinks = jnp.broadcast_to(sink[None, :, None, None], (*scores.shape[:3], 1))
        shares = jax.nn.softmax(jnp.concatenate([scores, astype(sinks, scores.dtype)], -1))[..., :-1]
    else:  # a query whose keys are all hidden by the bias gets zeros
        without_keys = jnp.max(scores, -1, keepdims=True) == -jnp.inf
        shares = jnp.where(without_keys, 0, jax.nn.softmax(jnp.where(without_keys, 0, scores)))
    return joined_heads(_mixed(shares, v)), k, v


def _written(past: Value, new: Value, starts: Value, total: int) -> Value:
    """Returns the cache with new entries of each sequence from its start on; its length is at least `total`."""
    batch, heads, n, size = new.shape
    length = 0 if past is None else past.shape[2]
    cache = jnp.zeros((batch, heads, max(length, total), size), new.dtype)
    if length:
        valid = jnp.arange(length) < starts[:, None]
        cache = cache.at[:, :, :length].set(jnp.where(valid[:, None, :, None], past, 0))
    rows = jnp.arange(batch)[:, None]
    return cache.at[rows, :, starts[:, None] + jnp.arange(n)].set(jnp.swapaxes(new, 1, 2))
