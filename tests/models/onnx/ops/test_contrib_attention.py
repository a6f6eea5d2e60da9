"""Attention operators of `com.microsoft` against onnxruntime."""

import numpy as np
import pytest

from tests.models.onnx.helpers import check_node

RNG = np.random.default_rng(0)
B, S, H, D = 2, 3, 4, 16


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def check(op, inputs, attrs, **options):
    check_node(op, inputs, attrs, 17, domain="com.microsoft", concrete=False, **({"atol": 5e-6} | options))


MASKS = {
    "none": None,
    "ends": np.int32([2, 3]),
    "ends and starts": np.int32([2, 3, 0, 1]),
    "each key": np.int32([[1, 1, 0], [0, 1, 1]]),
    "each pair": RNG.integers(0, 2, (B, S, S)).astype(np.int32),
}


@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("mask", MASKS)
def test_attention(mask, unidirectional):
    inputs = [normal(B, S, 16), normal(16, 3 * H * D), normal(3 * H * D), MASKS[mask]]
    attrs = {"num_heads": H, "unidirectional": unidirectional}
    check("Attention", inputs if MASKS[mask] is not None else inputs[:3], attrs)


def test_attention_with_a_past():
    inputs = [normal(B, S, 16), normal(16, 3 * H * D), normal(3 * H * D), None, normal(2, B, H, 5, D)]
    check("Attention", inputs, {"num_heads": H, "unidirectional": 1}, n_outputs=2)


def test_attention_with_a_bias_and_other_sizes():
    inputs = [
        normal(B, S, 16),
        normal(16, 2 * H * D + H * 5),
        normal(2 * H * D + H * 5),
        None,
        None,
        normal(1, H, S, S),
    ]
    check("Attention", inputs, {"num_heads": H, "qkv_hidden_sizes": [H * D, H * D, H * 5], "scale": 0.3})


@pytest.mark.parametrize("mask", [None, np.int32([4, 5]), RNG.integers(0, 2, (B, 5)).astype(np.int32)])
@pytest.mark.parametrize("bias", [True, False])
def test_multi_head_attention(mask, bias):
    inputs = [normal(B, S, H * D), normal(B, 5, H * D), normal(B, 5, H * D), normal(3 * H * D) if bias else None, mask]
    check("MultiHeadAttention", inputs, {"num_heads": H})


def test_multi_head_attention_with_a_past():
    qkv = [normal(B, S, H * D) for _ in range(3)]
    inputs = [*qkv, None, None, normal(B, H, S, S + 4), normal(B, H, 4, D), normal(B, H, 4, D)]
    check("MultiHeadAttention", inputs, {"num_heads": H, "unidirectional": 1}, n_outputs=3)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("places", ["start", "each"])
@pytest.mark.parametrize("rank", [3, 4])
def test_rotary_embedding(interleaved, places, rank):
    ids = np.int64([2]) if places == "start" else RNG.integers(0, 9, (B, S))
    x = normal(B, S, H * D) if rank == 3 else normal(B, H, S, D)
    check("RotaryEmbedding", [x, ids, normal(9, D // 2), normal(9, D // 2)], {"interleaved": interleaved})


def test_rotary_embedding_of_a_part():
    inputs = [normal(B, H, S, D), RNG.integers(0, 9, (B, S)), normal(9, 2), normal(9, 2)]
    check("RotaryEmbedding", inputs, {"rotary_embedding_dim": 4, "num_heads": H})


KV = 2


def grouped(new, past, lengths, total, packed=False, rotary=False):
    """Inputs of GroupQueryAttention."""
    q, k, v = normal(B, new, H * D), normal(B, new, KV * D), normal(B, new, KV * D)
    tensors = [np.concatenate([q, k, v], -1), None, None] if packed else [q, k, v]
    caches = [normal(B, KV, past, D), normal(B, KV, past, D)] if past is not None else [None, None]
    tables = [normal(32, D // 2), normal(32, D // 2)] if rotary else []
    return [*tensors, *caches, np.int32(lengths), np.int32(total), *tables]


GROUPED = {
    "first call": (grouped(4, None, [3, 3], 4), {}),
    "packed": (grouped(4, None, [3, 3], 4, packed=True), {}),
    "rotary": (grouped(4, None, [3, 3], 4, rotary=True), {"do_rotary": 1}),
    "rotary, interleaved": (grouped(4, None, [3, 3], 4, rotary=True), {"do_rotary": 1, "rotary_interleaved": 1}),
    "next call": (grouped(1, 5, [5, 5], 6, rotary=True), {"do_rotary": 1}),
    "next call, uneven": (grouped(1, 6, [5, 3], 6, rotary=True), {"do_rotary": 1}),
    "window": (grouped(6, None, [5, 5], 6), {"local_window_size": 2}),
    "capped": (grouped(4, None, [3, 3], 4), {"softcap": 2.0, "scale": 0.5}),
    "smooth": (grouped(4, None, [3, 3], 4), {"smooth_softmax": 1}),
}


@pytest.mark.parametrize("name", GROUPED)
def test_group_query_attention(name):
    inputs, attrs = GROUPED[name]
    check("GroupQueryAttention", inputs, {"num_heads": H, "kv_num_heads": KV, **attrs}, n_outputs=3)


def hidden(*places):
    """A bias of -inf at some (query, key) of every head."""
    bias = np.zeros((B, H, S, S), np.float32)
    for query, key in places:
        bias[:, :, query, key] = -np.inf
    return bias


# a key that no query may see, a query that sees no key, and one that sees none up to its own
HIDDEN = {"key": hidden((0, 1), (1, 1), (2, 1)), "query": hidden((1, 0), (1, 1), (1, 2)), "first": hidden((0, 0))}


@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("bias", HIDDEN)
def test_a_bias_of_minus_infinity(bias, unidirectional):
    attrs = {"num_heads": H, "unidirectional": unidirectional}
    check("MultiHeadAttention", [*(normal(B, S, H * D) for _ in range(3)), None, None, HIDDEN[bias]], attrs)


@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("filter_value", [-np.inf, float(np.finfo(np.float32).min)])
@pytest.mark.parametrize("mask", ["ends", "each key", "no key"])
def test_filter_values(mask, filter_value, unidirectional):
    inputs = [normal(B, S, 16), normal(16, 3 * H * D), normal(3 * H * D), MASKS.get(mask, np.zeros((B, S), np.int32))]
    attrs = {"num_heads": H, "unidirectional": unidirectional, "mask_filter_value": filter_value}
    check("Attention", inputs, attrs, atol=5e-5)


@pytest.mark.parametrize("window", [-1, 1, 2])
@pytest.mark.parametrize("bias", HIDDEN)
def test_a_group_query_that_sees_no_key_gives_zeros(bias, window):
    inputs = [*grouped(S, None, [S - 1] * B, S), None, None, None, HIDDEN[bias]]
    check("GroupQueryAttention", inputs, {"num_heads": H, "kv_num_heads": KV, "local_window_size": window}, n_outputs=3)
