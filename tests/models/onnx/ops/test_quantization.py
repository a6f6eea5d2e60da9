"""Quantisation against onnxruntime, and against exact arithmetic at ties."""

from fractions import Fraction

import jax
import numpy as np
import pytest

from tests.models.onnx.helpers import check_node, convert, node_model

RNG = np.random.default_rng(0)
X = (50 * RNG.standard_normal((4, 3, 6))).astype(np.float32)
SCALES = np.float32([0.5, 0.37, 1.9])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("opset", [10, 13, 19])
@pytest.mark.parametrize("zero", [0, 7])
def test_quantize_per_tensor(dtype, opset, zero):
    check_node("QuantizeLinear", [X, np.float32(0.37), dtype(zero)], {}, opset)


def test_quantize_without_a_zero_point():
    check_node("QuantizeLinear", [X, np.float32(0.37)], {}, 13)


@pytest.mark.parametrize(("axis", "scale"), [(1, SCALES), (-2, SCALES), (0, np.float32([0.1, 0.2, 0.5, 3]))])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_quantize_per_axis(axis, scale, dtype):
    zero = RNG.integers(0, 9, scale.shape).astype(dtype)
    check_node("QuantizeLinear", [X, scale, zero], {"axis": axis}, 13)
    q = RNG.integers(0, 100, X.shape).astype(dtype)
    check_node("DequantizeLinear", [q, scale, zero], {"axis": axis}, 13)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_sixteen_bits(dtype):
    check_node("QuantizeLinear", [X, np.float32(0.01), dtype(7)], {}, 21)


def test_blocks():
    scale = np.abs(RNG.standard_normal((4, 3, 2))).astype(np.float32) + np.float32(0.1)
    zero = RNG.integers(0, 9, scale.shape).astype(np.int8)
    attrs = {"axis": 2, "block_size": 3}
    wide, offset = np.repeat(scale, 3, 2), np.repeat(zero, 3, 2)
    want = np.clip(np.rint(X / wide) + offset, -128, 127).astype(np.int8)
    check_node("QuantizeLinear", [X, scale, zero], attrs, 21, want=[want])
    back = (want.astype(np.float32) - offset) * wide
    check_node("DequantizeLinear", [want, scale, zero], attrs, 21, want=[back])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32])
@pytest.mark.parametrize("opset", [10, 13, 21])
def test_dequantize_per_tensor(dtype, opset):
    q = RNG.integers(0, 100, (3, 5)).astype(dtype)
    check_node("DequantizeLinear", [q, np.float32(0.37), dtype(0)], {}, opset)


@pytest.mark.parametrize("x", [X, np.abs(X), -np.abs(X)])
def test_dynamic(x):
    check_node("DynamicQuantizeLinear", [x], {}, 11, n_outputs=3)


def test_dynamic_quantization_of_zeros():
    model = convert(node_model("DynamicQuantizeLinear", [np.zeros((2, 3), np.float32)], opset=11, n_outputs=3))
    y, scale, zero_point = model(np.zeros((2, 3), np.float32))
    assert np.all(y == zero_point)
    assert np.isfinite(scale)


@pytest.mark.parametrize("scale", [0.1, 0.3, 0.7, 1 / 3])
def test_ties_of_the_true_quotient_under_jit(scale):
    """Inputs at or next to half-way points: each must go where the rounded quotient says, compiled or not."""
    scale = np.float32(scale)
    halves = (np.arange(-120, 120) + 0.5).astype(np.float32) * scale
    x = np.concatenate([halves, np.nextafter(halves, np.float32(np.inf)), np.nextafter(halves, np.float32(-np.inf))])
    quotients = [np.float32(float(Fraction(float(v)) / Fraction(float(scale)))) for v in x]
    want = np.clip(np.rint(quotients), -128, 127).astype(np.int8)
    inputs = [x, scale, np.int8(0)]
    model = convert(node_model("QuantizeLinear", inputs, opset=13))
    np.testing.assert_array_equal(jax.jit(model.apply)(model.params, *inputs), want)
    np.testing.assert_array_equal(model.apply(model.params, *inputs), want)


def test_vmap_goes_through_the_barrier():
    model = convert(node_model("QuantizeLinear", [X[0], np.float32(0.3), np.int8(0)]))
    scales = np.float32([0.1, 0.3, 0.9, 2])
    mapped = jax.vmap(lambda x, s: model.apply(model.params, x, s, np.int8(0)))(X, scales)
    for i in range(4):
        np.testing.assert_array_equal(mapped[i], model.apply(model.params, X[i], scales[i], np.int8(0)))
