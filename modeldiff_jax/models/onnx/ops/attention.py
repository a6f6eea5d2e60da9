"""Attention and what goes with it: masks, caches of keys and values, rotary positions, recurrent forms."""

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

_RAW, _CAPPED, _BIASED, _PROBABILITIES = range(4)  # what `qk_matmul_output_mode` asks for


def split_heads(x: Value, count: int | None) -> Value:
    """(batch, length, heads * size) as (batch, heads, length, size)."""
    if x.ndim == 4:
        return x
    if count is None or count < 1 or x.ndim != 3 or x.shape[2] % count:
        raise InvalidInputError("Inputs of rank 3 divide into their heads", got=f"shape {x.shape}, {count} heads")
    return xp(x).swapaxes(x.reshape(*x.shape[:2], count, x.shape[2] // count), 1, 2)


def joined_heads(x: Value) -> Value:
    """(batch, heads, length, size) as (batch, length, heads * size)."""
    y = xp(x).swapaxes(x, 1, 2)
    return y.reshape(*y.shape[:2], y.shape[2] * y.shape[3])


def _shared(x: Value, heads: int) -> Value:
    """Keys or values for every query head: each head of `x` serves as many neighbouring ones."""
    if x.shape[1] == heads:
        return x
    if heads % x.shape[1]:
        raise InvalidInputError("Key heads divide the query heads", got=f"{x.shape[1]} of {heads}")
    return xp(x).repeat(x, heads // x.shape[1], axis=1)


def _bias(q: Value, length: int, mask: Value, seen: Value, causal: int, window: tuple[int, int], valid: Value) -> Value:
    """What is added to the scores of `length` keys: the mask, and -inf where a query may not look.

    `seen` is how many keys came before the first query: a number, or one for each example.
    """
    m = xp(q, mask, seen, valid)
    low = np.asarray(-np.inf, q.dtype)
    if mask is None:
        bias = m.zeros((1, 1), q.dtype)
    else:
        bias = m.where(mask, m.zeros((), q.dtype), low) if mask.dtype == bool else astype(mask, q.dtype)
        short = length - bias.shape[-1]
        if short > 0:
            bias = m.pad(bias, [(0, 0)] * (bias.ndim - 1) + [(0, short)], constant_values=low)
    ahead = (
        np.arange(length) - np.arange(q.shape[2])[:, None] - (seen if np.ndim(seen) == 0 else seen[:, None, None, None])
    )
    allowed = np.ones((1, 1), bool)
    before, after = window
    if causal == 1:
        allowed = allowed & (ahead <= 0)
    if before >= 0:
        allowed = allowed & (ahead >= -before)
    if after >= 0:
        allowed = allowed & (ahead <= after)
    if valid is not None:
        allowed = allowed & (np.arange(length) < valid.reshape(-1)[:, None, None, None])
    return m.where(allowed, bias, low)


def _root_of_scale(q: Value, scale: float | None) -> np.ndarray:
    """Returns what queries and keys are each multiplied by, which keeps their products in range."""
    if scale is not None and scale < 0:
        raise InvalidInputError("The scale of attention is not negative", got=f"{scale}")
    return np.asarray(math.sqrt(1 / math.sqrt(q.shape[3]) if scale is None else scale), q.dtype)


def _softmax_type(number: int | None, default: Any) -> np.dtype[Any]:
    """The type in which the softmax is computed, by its number in ONNX."""
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
    seen: Any = 0
    if past_key is not None:
        seen = past_key.shape[2]
        k = xp(past_key, k).concatenate([past_key, k], 2)
        v = xp(past_value, v).concatenate([past_value, v], 2)
    elif valid is not None:
        seen = valid.reshape(-1) - q.shape[2]
    keys, values = _shared(k, q.shape[1]), _shared(v, q.shape[1])
    m = xp(q, keys, mask, valid)
    factor = _root_of_scale(q, scale)
    scores = astype(matmul(q * factor, m.swapaxes(keys, 2, 3) * factor), q.dtype)
    shown = scores
    if softcap > 0:
        scores = astype(m.tanh(scores / np.asarray(softcap, q.dtype)) * np.asarray(softcap, q.dtype), q.dtype)
    if qk_matmul_output_mode == _CAPPED:
        shown = scores
    bias = _bias(q, k.shape[2], mask, seen, is_causal, window, valid)
    scores = scores + bias
    if qk_matmul_output_mode == _BIASED:
        shown = scores
    # a query that may look at nothing sees zeros; without the detour its scores would be NaN
    blind = m.max(bias, axis=-1, keepdims=True) == -np.inf
    wide = _softmax_type(softmax_precision, q.dtype)

    def softmaxed() -> Value:
        return astype(m.where(blind, 0, softmax(m.where(blind, 0, astype(scores, wide)))), q.dtype)

    weights = computing_in(wide, (scores, blind), softmaxed)
    if qk_matmul_output_mode == _PROBABILITIES:
        shown = weights
    y = astype(matmul(weights, values), v.dtype)
    return (joined_heads(y) if flat else y), k, v, shown


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
    """softmax(q k' / sqrt(size) + mask) v, head by head; all keys and values, the past ones first; and the scores."""
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
    """Attention in which a query sees only the keys within a window around its own place."""
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
    """Attention whose scores and probabilities the model's own graphs change."""
    factor = _root_of_scale(q, scale)
    wide = _softmax_type(softmax_precision, np.promote_types(q.dtype, np.float32))

    def attended() -> Value:
        keys, values = _shared(k, q.shape[1]), _shared(v, q.shape[1])
        scores = astype(accumulated_product(q * factor, xp(keys).swapaxes(keys, 2, 3) * factor), wide)
        if score_mod is not None:
            scores = astype(score_mod(scores)[0], wide)
        weights = softmax(scores)
        if prob_mod is not None:
            weights = astype(prob_mod(weights)[0], wide)
        return astype(matmul(weights, astype(values, wide)), v.dtype)

    # the graphs may read anything, so where 64 bits are needed it is traced as a piece whatever is known
    return x64.in_64_bits(attended) if x64.is_64_bit(wide) or x64.is_64_bit(q.dtype) else attended()


def rotated(x: Value, cosines: Value, sines: Value, interleaved: bool) -> Value:
    """(batch, heads, length, size) with as many pairs of each head's first entries turned as there are angles."""
    m, half = xp(x, cosines, sines), cosines.shape[-1]
    part, rest = x[..., : 2 * half], x[..., 2 * half :]
    a, b = (part[..., 0::2], part[..., 1::2]) if interleaved else (part[..., :half], part[..., half:])
    real, imaginary = cosines * a - sines * b, sines * a + cosines * b
    both = m.stack([real, imaginary], -1) if interleaved else m.concatenate([real, imaginary], -1)
    return m.concatenate([both.reshape(part.shape), rest], -1)


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
    """Pairs of each head's entries turned by an angle that grows with the place in the sequence (Su et al. 2021)."""
    heads = split_heads(x, num_heads)
    m = xp(x, cosines, sines, positions)
    if positions is not None:
        cosines, sines = m.asarray(cosines)[positions], m.asarray(sines)[positions]
    cosines, sines = cosines[:, None], sines[:, None]  # (batch, 1, length, half)
    if rotary_embedding_dim not in (0, 2 * cosines.shape[-1]):
        raise InvalidInputError(
            "Half as many angles are given as entries turned",
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
    """A state of outer products of keys and values, read by each query; decay and delta rule by `update_rule`."""
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

    def step(state: Value, now: dict[str, Value]) -> tuple[Value, Value]:
        k, v = now["k"], now["v"]
        if "decay" in now:
            state = state * jnp.exp(now["decay"])[..., None]
        if "beta" in now:
            v = now["beta"] * (v - jnp.einsum("bhdm,bhd->bhm", state, k, precision=HIGHEST))
        state = state + k[..., None] * v[..., None, :]
        read = _shared(state, q_num_heads)
        return state, factor * jnp.einsum("bhd,bhdm->bhm", now["q"], read, precision=HIGHEST)

    last, rows = jax.lax.scan(
        step,
        jnp.asarray(start, wide),
        {name: jnp.moveaxis(jnp.asarray(x, wide), 2, 0) for name, x in steps.items()},
    )
    kept = query.dtype if past_state is None else past_state.dtype
    return astype(joined_heads(jnp.moveaxis(rows, 0, 2)), query.dtype), astype(last, kept)


@op("CausalConvWithState")
def causal_conv_with_state(
    x: Value, w: Value, b: Value = None, past_state: Value = None, /, *, activation: str = "none"
) -> tuple[Value, Value]:
    """Each channel convolved with its own taps over the steps before, and the last steps for the next call."""
    if activation not in ("none", "silu", "swish"):
        raise InvalidInputError("The activation is none, silu or swish", got=activation)
    m, taps = xp(x, w, b, past_state), w.shape[2]
    check_written_out(taps)
    before = m.zeros((*x.shape[:2], taps - 1), x.dtype) if past_state is None else past_state
    whole = m.concatenate([before, x], 2)
    length = x.shape[2]
    kept = jnp.promote_types(x.dtype, np.float32)
    wide, taps_of = astype(whole, kept), astype(w, kept)
    y = sum(wide[:, :, i : i + length] * taps_of[:, 0, i, None] for i in range(taps))
    y = astype(y if b is None else y + astype(b, kept)[:, None], x.dtype)
    if activation != "none":
        y = astype(y, kept)
        y = astype(y / (1 + m.exp(-y)), x.dtype)
    return y, whole[:, :, whole.shape[2] - (taps - 1) :]


@op("TensorScatter")
def tensor_scatter(
    cache: Value, update: Value, starts: Index = None, /, *, axis: int = -2, mode: str = "linear"
) -> Value:
    """A cache with each example's update written along `axis` from its start on; `circular` goes round the end."""
    if mode not in ("linear", "circular"):
        raise InvalidInputError("TensorScatter's mode is linear or circular", got=mode)
    at, m = axis_index(axis, cache.ndim), xp(cache, update, starts)
    size, length = cache.shape[at], update.shape[at]
    first = np.zeros(cache.shape[0], np.int64) if starts is None else starts
    places = first[:, None] + np.arange(length)
    if mode == "circular":
        places = places % size
    # as a gather: which update, if any, each place of the cache takes
    source = np.arange(size)[None, :, None] == places[:, None, :]
    shape = (cache.shape[0],) + (1,) * (at - 1) + (size,) + (1,) * (cache.ndim - at - 1)
    index = m.argmax(source, axis=2).reshape(shape)
    return m.where(source.any(2).reshape(shape), m.take_along_axis(update, index, at), cache)
