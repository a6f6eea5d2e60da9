"""Products of 8-bit integers against exact arithmetic.

onnxruntime is no oracle here: on CPUs without 8-bit dot products its sums of int8 weights saturate at 16 bits.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.models.onnx.helpers import check_node

RNG = np.random.default_rng(0)


def eight_bits(dtype, *shape):
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max, shape, dtype, endpoint=True)


def product(a, b, a_zero, b_zero):
    """In int64."""
    return (a.astype(np.int64) - a_zero) @ (b.astype(np.int64) - b_zero)


@pytest.mark.parametrize("a_type", [np.uint8, np.int8])
@pytest.mark.parametrize(("shape_a", "shape_b"), [((3, 4), (4, 5)), ((2, 3, 700), (700, 5))])
def test_matmul_integer(a_type, shape_a, shape_b):
    a, b = eight_bits(a_type, *shape_a), eight_bits(np.int8, *shape_b)
    check_node("MatMulInteger", [a, b], {}, 10, want=[product(a, b, 0, 0).astype(np.int32)])
    zeros = [a_type(100), np.int8(-100)]
    check_node("MatMulInteger", [a, b, *zeros], {}, 10, want=[product(a, b, 100, -100).astype(np.int32)])


def test_matmul_integer_is_exact_at_its_extremes():
    a, b = np.full((2, 2000), 255, np.uint8), np.full((2000, 2), 255, np.uint8)
    check_node("MatMulInteger", [a, b], {}, 10, want=[np.full((2, 2), 255 * 255 * 2000, np.int32)])


def test_matmul_integer_with_zero_points_of_rows_and_columns():
    a, b = eight_bits(np.uint8, 3, 4), eight_bits(np.int8, 4, 5)
    rows, columns = np.uint8([1, 2, 3]), np.int8([0, -1, 2, 3, 4])
    want = (a.astype(np.int32) - rows[:, None]) @ (b.astype(np.int32) - columns)
    check_node("MatMulInteger", [a, b, rows, columns], {}, 10, want=[want.astype(np.int32)])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_qlinear_matmul(dtype):
    a, b = eight_bits(dtype, 3, 40), eight_bits(dtype, 40, 5)
    inputs = [a, np.float32(0.02), dtype(3), b, np.float32(0.01), dtype(5), np.float32(0.7), dtype(9)]
    exact = np.rint(product(a, b, 3, 5) * 0.02 * 0.01 / 0.7) + 9
    info = np.iinfo(dtype)
    check_node("QLinearMatMul", inputs, {}, 10, want=[exact.clip(info.min, info.max).astype(dtype)])


def convolution(x, w, x_zero, w_zero, pads=(0, 0, 0, 0), strides=(1, 1), dilations=(1, 1), group=1):
    """In int32, by XLA's own integer convolution."""
    n = len(pads) // 2
    w_zero = np.reshape(w_zero, (-1, *(1,) * (w.ndim - 1)))
    wide, filters = x.astype(np.int32) - x_zero, w.astype(np.int32) - w_zero
    padding = list(zip(pads[:n], pads[n:], strict=True))
    result = lax.conv_general_dilated(
        wide, filters, strides[:n], padding, rhs_dilation=dilations[:n], feature_group_count=group
    )
    return np.asarray(result)


CONVOLUTIONS = {
    "plain": ((2, 3, 7, 8), (4, 3, 3, 3), {}),
    "padded": ((1, 3, 7, 8), (4, 3, 3, 2), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    "one tap, channels in pieces": ((1, 1100, 3, 2), (4, 1100, 1, 1), {}),
    "channels in pieces": ((1, 70, 6, 6), (3, 70, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "groups in pieces": ((1, 140, 5, 5), (6, 70, 3, 3), {"group": 2, "dilations": [2, 2]}),
    "depthwise": ((2, 6, 7, 7), (6, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1]}),
    "taps in pieces": ((1, 2, 40, 41), (3, 2, 30, 31), {"pads": [9, 3, 2, 1], "strides": [2, 3]}),
    "pieces in the padding": ((1, 1, 5, 5), (2, 1, 30, 30), {"pads": [30, 30, 30, 30]}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("types", [(np.uint8, np.int8), (np.int8, np.uint8)])
def test_convolution_is_exact(name, types):
    x_shape, w_shape, attributes = CONVOLUTIONS[name]
    x, w = (eight_bits(t, *s) for t, s in zip(types, (x_shape, w_shape), strict=True))
    want = convolution(x, w, 0, 0, **attributes)
    check_node("ConvInteger", [x, w], attributes, 10, want=[want], concrete=False)


def test_convolution_at_its_extremes():
    x, w = np.full((1, 600, 3, 3), 255, np.uint8), np.full((1, 600, 3, 3), 255, np.uint8)
    check_node("ConvInteger", [x, w], {}, 10, want=[np.full((1, 1, 1, 1), 255 * 255 * 5400, np.int32)])


@pytest.mark.parametrize("w_zero", [np.int8(-3), np.int8([1, -2, 3, -128])], ids=["one", "an output each"])
def test_convolution_with_zero_points(w_zero):
    x, w = eight_bits(np.uint8, 2, 60, 5, 5), eight_bits(np.int8, 4, 60, 3, 3)
    want = convolution(x, w, 200, w_zero.astype(np.int32), pads=[1, 1, 1, 1])
    check_node("ConvInteger", [x, w, np.uint8(200), w_zero], {"pads": [1, 1, 1, 1]}, 10, want=[want])


def test_convolution_of_one_axis():
    x, w = eight_bits(np.int8, 2, 5, 30), eight_bits(np.int8, 4, 5, 7)
    want = convolution(x, w, 0, 0, pads=[3, 3], strides=[2], dilations=[1])
    check_node("ConvInteger", [x, w], {"pads": [3, 3], "strides": [2]}, 10, want=[want])


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding(auto_pad):
    x, w = eight_bits(np.uint8, 1, 2, 6, 7), eight_bits(np.uint8, 3, 2, 3, 3)
    check_node("ConvInteger", [x, w, np.uint8(9)], {"auto_pad": auto_pad, "strides": [2, 2]}, 10)


@pytest.mark.parametrize("types", [(np.uint8, np.uint8), (np.int8, np.int8), (np.uint8, np.int8)])
@pytest.mark.parametrize("scales", [np.float32(0.013), np.float32([0.013, 0.002, 0.04, 0.007])], ids=["one", "each"])
@pytest.mark.parametrize("bias", [True, False])
def test_qlinear_conv(types, scales, bias):
    x_type, w_type = types
    x, w = eight_bits(x_type, 2, 30, 6, 6), eight_bits(w_type, 4, 30, 3, 3)
    w = w // 2 if types == (np.uint8, np.int8) else w  # so that onnxruntime's 16-bit sums hold them
    w_zero = np.zeros(scales.shape, w_type) if w_type == np.int8 else np.full(scales.shape, 120, w_type)
    inputs = [x, np.float32(0.02), x_type(3), w, scales, w_zero, np.float32(0.7), x_type(9)]
    if bias:
        inputs.append(RNG.integers(-5000, 5000, 4).astype(np.int32))
    check_node("QLinearConv", inputs, {"pads": [1, 1, 1, 1], "strides": [1, 2]}, 10, concrete=False)


def test_no_integer_convolution_is_compiled():
    from modeldiff_jax.models.onnx.ops.integer import conv_integer

    x, w = jnp.zeros((1, 80, 6, 6), jnp.uint8), jnp.zeros((4, 80, 3, 3), jnp.int8)
    text = jax.jit(conv_integer).lower(x, w).as_text()
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert convolutions
    assert all("f32" in line.rsplit("->", 1)[1] for line in convolutions)
