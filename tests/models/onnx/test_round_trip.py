"""Functions and Flax modules exported by jax2onnx come back equal: JAX -> ONNX -> JAX.

Needs jax2onnx (`pip install -e '.[roundtrip]'`), which the package itself never imports.
"""

import importlib.util
from functools import reduce

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from hypothesis import HealthCheck, assume, given, settings

from tests.models.onnx.helpers import convert, expected

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("jax2onnx") is None,
        reason="jax2onnx is not installed: pip install -e '.[roundtrip]'",
    ),
    pytest.mark.filterwarnings("ignore"),  # of the exporter and what it imports
]


def last(x):
    """The size of the last axis."""
    return x.shape[-1]


def matrix(rows, columns):
    return jnp.asarray(np.random.default_rng(rows * 31 + columns).standard_normal((rows, columns)), jnp.float32)


STEPS = {
    "abs": jnp.abs,
    "add row": lambda x: x + jnp.arange(last(x), dtype=x.dtype),
    "argmax": lambda x: jnp.argmax(x, -1, keepdims=True).astype(x.dtype),
    "attention": lambda x: jax.nn.softmax(x @ jnp.swapaxes(x, -1, -2)) @ x if x.ndim > 1 else x,
    "broadcast": lambda x: jnp.broadcast_to(x, (2, *x.shape)) if x.ndim < 4 else x,
    "cast": lambda x: (4 * x).astype(jnp.int32).astype(x.dtype),
    "clip": lambda x: jnp.clip(x, -0.5, 0.5),
    "cond": lambda x: jax.lax.cond(jnp.sum(x) > 0, lambda: x + 1, lambda: x * 2),
    "concatenate": lambda x: jnp.concatenate([x, -x], -1),
    "cumsum": lambda x: jnp.cumsum(x, axis=-1),
    "divide": lambda x: x / (1 + jnp.abs(x)),
    "exp": lambda x: jnp.exp(-jnp.abs(x)),
    "floor": lambda x: jnp.floor(3 * x),
    "fori_loop": lambda x: jax.lax.fori_loop(0, 3, lambda i, c: 0.5 * c + i, x),
    "gelu": jax.nn.gelu,
    "integer division": lambda x: ((10 * x).astype(jnp.int32) // 3).astype(x.dtype),
    "integer remainder": lambda x: ((10 * x).astype(jnp.int32) % 3).astype(x.dtype),
    "layer norm": lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-3),
    "log": lambda x: jnp.log1p(jnp.abs(x)),
    "logsumexp": lambda x: jax.nn.logsumexp(x, axis=-1, keepdims=True),
    "matmul": lambda x: x @ matrix(last(x), 3),
    "max": lambda x: jnp.max(x, axis=0, keepdims=True),
    "mean": lambda x: jnp.mean(x, axis=-1, keepdims=True),
    "pad": lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 2)]),
    "power": lambda x: x**3,
    "product": lambda x: jnp.prod(x, axis=-1, keepdims=True),
    "reshape": lambda x: x.reshape(-1),
    "reverse": lambda x: jax.lax.rev(x, (x.ndim - 1,)),
    "round": lambda x: jnp.round(4 * x),
    "scan": lambda x: jax.lax.scan(lambda c, row: (c + row, c * row), jnp.zeros(x.shape[1:]), x)[1],
    "sign": jnp.sign,
    "silu": jax.nn.silu,
    "slice": lambda x: x[..., ::2],
    "softmax": lambda x: jax.nn.softmax(x, axis=-1),
    "sort": lambda x: jnp.sort(x, axis=-1),
    "squeeze": lambda x: jnp.squeeze(x[None], 0),
    "stack": lambda x: jnp.stack([x, x + 1]) if x.ndim < 4 else x,
    "sum": lambda x: jnp.sum(x, axis=0, keepdims=True),
    "take": lambda x: jnp.take(x, jnp.asarray([0, last(x) - 1, 0]), axis=-1),
    "tanh": jnp.tanh,
    "tile": lambda x: jnp.tile(x, 2),
    "transpose": lambda x: jnp.transpose(x),
    "where": lambda x: jnp.where(x > 0, x, x * 0.1),
}


def composed(names):
    """The steps one after the other, each held to [-2, 2] for the next."""
    return lambda x: reduce(lambda y, name: 2 * jnp.tanh(STEPS[name](y)), names, x)


def exported(function, *arguments, **options):
    from jax2onnx import to_onnx

    specs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arguments]
    return to_onnx(function, specs, **options)


def assert_comes_back(proto, arguments, want, tolerance=1e-4):
    model = convert(proto)
    for got in (jax.jit(model.apply)(model.params, *arguments), model.apply(model.params, *arguments)):
        assert got.shape == want.shape
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(1, np.ptp(want)))


@pytest.mark.parametrize("name", STEPS)
def test_each_step(name):
    x = np.random.default_rng(0).uniform(-2, 2, (3, 4)).astype(np.float32)
    function = composed([name])
    assert_comes_back(exported(function, x), [x], np.asarray(function(x)))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    names=st.lists(st.sampled_from(sorted(STEPS)), min_size=2, max_size=5),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    opset=st.sampled_from([21, 23]),
    seed=st.integers(0, 99),
)
def test_compositions(names, shape, opset, seed):
    x = np.random.default_rng(seed).uniform(-2, 2, shape).astype(np.float32)
    function = composed(names)
    want = np.asarray(function(x))
    # where a value lies on a step of round or sign, rounding errors decide
    nearby = np.asarray(function(x * np.float32(1 + 1e-6)))
    assume(np.allclose(want, nearby, rtol=0, atol=1e-4))
    try:
        proto = exported(function, x, opset=opset)
        reference = expected(proto, {proto.graph.input[0].name: x})[0]
    except Exception:  # the exporter's own limits
        assume(False)
    assume(np.allclose(reference, want, rtol=0, atol=1e-4))  # and its own errors, which onnxruntime gives too
    assert_comes_back(proto, [x], want)


class Decoder(linen.Module):
    """A small Flax decoder: Flax's own attention with a causal mask, then one with rotary positions written by hand."""

    width: int = 16
    heads: int = 4
    shared: int = 2

    @linen.compact
    def __call__(self, tokens):
        length, size = tokens.shape[1], self.width // self.heads
        x = linen.Embed(37, self.width)(tokens)
        mask = linen.make_causal_mask(tokens)
        h = linen.LayerNorm()(x)
        x = x + linen.MultiHeadDotProductAttention(self.heads, deterministic=True)(h, h, mask=mask)
        h = linen.RMSNorm()(x)
        angles = jnp.arange(length)[:, None] * 10000.0 ** (-jnp.arange(0, size, 2) / size)
        cosines, sines = (jnp.concatenate([f(angles)] * 2, -1)[None, :, None] for f in (jnp.cos, jnp.sin))

        def rotated(y):
            a, b = jnp.split(y, 2, axis=-1)
            return y * cosines + jnp.concatenate([-b, a], -1) * sines

        batch = tokens.shape[0]
        q = rotated(linen.Dense(self.width)(h).reshape(batch, length, self.heads, size))
        k = rotated(linen.Dense(self.shared * size)(h).reshape(batch, length, self.shared, size))
        v = linen.Dense(self.shared * size)(h).reshape(batch, length, self.shared, size)
        k, v = (jnp.repeat(part, self.heads // self.shared, axis=2) for part in (k, v))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(1.0 * size) + jnp.where(mask, 0, -1e9)
        y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)
        x = x + linen.Dense(self.width)(y.reshape(batch, length, self.width))
        h = linen.RMSNorm()(x)
        x = x + linen.Dense(self.width)(linen.silu(linen.Dense(3 * self.width)(h)) * linen.Dense(3 * self.width)(h))
        return linen.Dense(37)(linen.LayerNorm()(x))


@pytest.mark.parametrize("opset", [21, 23])
def test_a_flax_decoder(opset):
    tokens = np.random.default_rng(0).integers(0, 37, (2, 7)).astype(np.int32)
    decoder = Decoder()
    variables = decoder.init(jax.random.key(0), tokens)

    def function(tokens):
        return decoder.apply(variables, tokens)

    assert_comes_back(exported(function, tokens, opset=opset), [tokens], np.asarray(function(tokens)))
