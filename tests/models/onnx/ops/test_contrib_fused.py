"""Fused `com.microsoft` operators against onnxruntime."""

import math

import jax
import numpy as np
import pytest

from tests.models.onnx.helpers import check_node, convert, node_model

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def check(op, inputs, attrs=None, **options):
    check_node(op, inputs, attrs, 17, domain="com.microsoft", concrete=False, **({"atol": 2e-6} | options))


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_matmul(trans_a, trans_b):
    a, b = normal(2, *((4, 3) if trans_a else (3, 4))), normal(*((5, 4) if trans_b else (4, 5)))
    check("FusedMatMul", [a, b], {"transA": trans_a, "transB": trans_b, "alpha": 0.5})


@pytest.mark.parametrize("trans_a", [0, 1])
def test_matmul_of_turned_batches(trans_a):
    a, b = normal(*((4, 2, 3) if trans_a else (3, 2, 4))), normal(2, 4, 5)
    check("FusedMatMul", [a, b], {"transA": trans_a, "transBatchA": 1})
    check("FusedMatMul", [normal(2, 3, 4), normal(4, 2, 5)], {"transBatchB": 1})


ACTIVATIONS = {
    "Relu": [],
    "Sigmoid": [],
    "Tanh": [],
    "LeakyRelu": [0.3],
    "Clip": [-0.5, 0.7],
    "HardSigmoid": [0.3, 0.4],
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_convolution(activation):
    attrs = {"activation": activation, "pads": [1, 1, 0, 0], "strides": [2, 1]}
    if ACTIVATIONS[activation]:
        attrs["activation_params"] = ACTIVATIONS[activation]
    check("FusedConv", [normal(1, 3, 6, 7), normal(4, 3, 3, 3), normal(4)], attrs)


def test_convolution_with_a_sum():
    check("FusedConv", [normal(1, 3, 6, 7), normal(4, 3, 3, 3), None, normal(1, 4, 4, 5)], {"activation": "Relu"})


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [
        ("Relu", {}),
        ("LeakyRelu", {"activation_alpha": 0.3}),
        ("HardSigmoid", {"activation_alpha": 0.3, "activation_beta": 0.4}),
        ("Softplus", {}),
    ],
)
def test_gemm(activation, parameters):
    attrs = {"activation": activation, "transB": 1, "alpha": 0.5, "beta": 2.0, **parameters}
    check("FusedGemm", [normal(3, 4), normal(5, 4), normal(5)], attrs)


def test_gelus():
    x, bias = normal(3, 8), normal(8)
    check("Gelu", [x])
    check("FastGelu", [x])
    check("FastGelu", [x, bias])
    check("BiasGelu", [x, bias])
    check("QuickGelu", [x], {"alpha": 1.3})


def test_split_gelu():
    """Made for diffusion models on GPU; onnxruntime has no CPU kernel."""
    x, bias = normal(2, 3, 8), normal(8)
    total = (x + bias).astype(np.float64)
    gate = np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / 2**0.5)))(total[..., 4:])
    check("BiasSplitGelu", [x, bias], want=[(total[..., :4] * gate).astype(np.float32)])
    check("BiasAdd", [x, bias, x], want=[x + bias + x])


def test_softmax_with_a_bias():
    """No CPU kernel either."""
    x, bias = normal(2, 3, 4), normal(2, 1, 4)
    e = np.exp((x + bias).astype(np.float64))
    want = [(e / e.sum(-1, keepdims=True)).astype(np.float32)]
    check("BiasSoftmax", [x, bias], {"axis": 2, "is_inner_broadcast": 0}, want=want)


@pytest.mark.parametrize("beta", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_skip_layer_normalization(beta, bias):
    inputs = [normal(2, 3, 8), normal(2, 3, 8), normal(8), normal(8) if beta else None]
    attrs = {"epsilon": 1e-5}
    check("SkipLayerNormalization", [*inputs, normal(8)] if bias else inputs[: 4 if beta else 3], attrs)


@pytest.mark.parametrize("bias", [True, False])
def test_skip_simplified_layer_normalization(bias):
    inputs = [normal(2, 3, 8), normal(2, 3, 8), normal(8)]
    check("SkipSimplifiedLayerNormalization", inputs + [normal(8)] * bias, {"epsilon": 1e-5})


def test_the_sum_is_given_too():
    inputs = [normal(2, 3, 8), normal(2, 3, 8), normal(8)]
    proto = node_model("SkipSimplifiedLayerNormalization", inputs, n_outputs=4, domain="com.microsoft")
    model = convert(proto)
    np.testing.assert_allclose(jax.jit(model.apply)(model.params, *inputs)[3], inputs[0] + inputs[1])


def test_simplified_layer_normalization():
    check_node("SimplifiedLayerNormalization", [normal(2, 3, 8), normal(8)], {"epsilon": 1e-5}, 17, concrete=False)


@pytest.mark.parametrize("segments", [True, False])
@pytest.mark.parametrize("places", [True, False])
def test_embedding(segments, places):
    ids = RNG.integers(0, 10, (2, 5)).astype(np.int32)
    kinds = RNG.integers(0, 2, (2, 5)).astype(np.int32) if segments else None
    mask = np.int32([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    inputs = [ids, kinds, normal(10, 8), normal(7, 8), normal(2, 8) if segments else None, normal(8), normal(8), mask]
    inputs += [RNG.integers(0, 7, (2, 5)).astype(np.int32)] if places else []
    check("EmbedLayerNormalization", inputs, n_outputs=3)


@pytest.mark.parametrize(("bits", "zero_points"), [(4, None), (4, "packed"), (4, "floats"), (8, None), (8, "packed")])
@pytest.mark.parametrize("size", [32, 40])
def test_matmul_of_few_bits(bits, zero_points, size):
    n, block = 3, 16
    blocks = -(-size // block)
    b = RNG.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8)
    inputs = [normal(2, 5, size), b, np.abs(normal(n, blocks))]
    if zero_points == "packed":
        inputs.append(RNG.integers(0, 256, (n, -(-blocks * bits // 8))).astype(np.uint8))
    elif zero_points == "floats":
        inputs.append(normal(n, blocks))
    attrs = {"K": size, "N": n, "block_size": block, "bits": bits}
    check("MatMulNBits", inputs, attrs, rtol=1e-4, atol=1e-4 * 2**bits)


@pytest.mark.parametrize("zero_points", [True, False])
def test_gather_of_blocks(zero_points):
    data, scales = RNG.integers(0, 256, (6, 32)).astype(np.uint8), np.abs(normal(6, 4))
    inputs = [data, RNG.integers(0, 6, (2, 3)), scales]
    inputs += [RNG.integers(0, 256, (6, 2)).astype(np.uint8)] if zero_points else []
    check("GatherBlockQuantized", inputs, {"bits": 4, "block_size": 16})
