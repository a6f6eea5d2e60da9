"""Quantised `com.microsoft` operators against onnxruntime."""

import numpy as np
import pytest

from tests.models.onnx.helpers import check_node

RNG = np.random.default_rng(0)
DTYPES = pytest.mark.parametrize("dtype", [np.uint8, np.int8])


def check(op, inputs, attrs=None, **options):
    check_node(op, inputs, attrs, 17, domain="com.microsoft", concrete=False, **options)


def every(dtype):
    """Every value of an 8-bit type."""
    return np.arange(256).astype(np.uint8).view(dtype)


def some(dtype, *shape):
    return RNG.integers(0, 256, shape).astype(np.uint8).view(dtype)


@DTYPES
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize("scales", [(0.02, 0.03, 0.07), (0.5, 0.25, 0.125), (0.0123, 0.0456, 0.00071)])
def test_every_pair(op, scales, dtype):
    """All 65,536 pairs give the very integers onnxruntime gives."""
    a, b, c = map(np.float32, scales)
    check(op, [every(dtype)[:, None], a, dtype(3), every(dtype)[None], b, dtype(100), c, dtype(50)])


@DTYPES
def test_sum_without_a_zero_point_behind(dtype):
    a, b = [every(dtype), np.float32(0.1), dtype(3)], [some(dtype, 2, 1), np.float32(0.3), dtype(7)]
    check("QLinearAdd", [*a, *b, np.float32(0.2)])


@DTYPES
@pytest.mark.parametrize(("op", "attrs"), [("QLinearSigmoid", {}), ("QLinearLeakyRelu", {"alpha": 0.3})])
def test_every_value(op, attrs, dtype):
    check(op, [every(dtype), np.float32(0.04), dtype(10), np.float32(1 / 256), dtype(0)], attrs)


@DTYPES
@pytest.mark.parametrize(("opset", "axis"), [(13, -1), (13, 1), (11, 1)])
@pytest.mark.parametrize("scale", [1 / 256, 0.0077])
def test_softmax(dtype, opset, axis, scale):
    x, zero = some(dtype, 3, 4, 20), dtype(0 if dtype == np.uint8 else -128)
    check("QLinearSoftmax", [x, np.float32(0.03), dtype(9), np.float32(scale), zero], {"opset": opset, "axis": axis})


@DTYPES
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(dtype, axis):
    parts = [some(dtype, 2, 3), np.float32(0.1), dtype(3), some(dtype, 2, 3), np.float32(0.04), dtype(7)]
    check("QLinearConcat", [np.float32(0.1), dtype(5), *parts], {"axis": axis})


@DTYPES
def test_where(dtype):
    tensors = [some(dtype, 2, 5), np.float32(0.1), dtype(3), some(dtype, 5), np.float32(0.04), dtype(7)]
    condition = RNG.integers(0, 2, (2, 5)).astype(bool)
    check("QLinearWhere", [condition, *tensors, np.float32(0.2), dtype(9)])


POOLS = {
    "plain": {"kernel_shape": [2, 3]},
    "padded": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]},
    "padding counts": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    "ceil": {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
}


@DTYPES
@pytest.mark.parametrize("channels_last", [0, 1])
@pytest.mark.parametrize("name", POOLS)
def test_average_pool(name, channels_last, dtype):
    inputs = [some(dtype, 2, 7, 9, 5), np.float32(0.1), dtype(3), np.float32(0.07), dtype(9)]
    check("QLinearAveragePool", inputs, POOLS[name] | {"channels_last": channels_last})


@DTYPES
@pytest.mark.parametrize("channels_last", [0, 1])
def test_global_average_pool(channels_last, dtype):
    inputs = [some(dtype, 2, 7, 9, 5), np.float32(0.1), dtype(3), np.float32(0.07), dtype(9)]
    check("QLinearGlobalAveragePool", inputs, {"channels_last": channels_last})


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("output", ["integers", "floats"])
def test_gemm(transposed, output):
    a, b = some(np.uint8, 6, 4), some(np.uint8, *((5, 6) if transposed else (6, 5)))
    c = RNG.integers(-900, 900, 5).astype(np.int32)
    inputs = [a, np.float32(0.1), np.uint8(3), b, np.float32(0.04), np.uint8(120), c]
    inputs += [np.float32(2.3), np.uint8(128)] if output == "integers" else []
    check("QGemm", inputs, {"transA": 1, "transB": transposed, "alpha": 0.5})


def test_gemm_with_a_scale_for_each_column():
    scales, zeros = np.float32([0.1, 0.02, 0.3]), np.uint8([120, 130, 3])
    inputs = [some(np.uint8, 4, 6), np.float32(0.1), np.uint8(3), some(np.uint8, 6, 3), scales, zeros, None]
    check("QGemm", [*inputs, np.float32(2.3), np.uint8(128)])


@pytest.mark.parametrize("channels_last", [0, 1])
def test_convolution(channels_last):
    x = some(np.uint8, *((2, 7, 9, 6) if channels_last else (2, 6, 7, 9)))
    w, b = some(np.uint8, 4, 3, 3, 3), RNG.integers(-900, 900, 4).astype(np.int32)
    inputs = [x, np.float32(0.1), np.uint8(3), w, np.float32(0.04), np.uint8(120), np.float32(2.3), np.uint8(128), b]
    attrs = {"group": 2, "pads": [1, 0, 1, 2], "strides": [1, 2], "channels_last": channels_last}
    check("QLinearConv", inputs, attrs)


@DTYPES
def test_max_pool_of_channels_last(dtype):
    attrs = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}
    check("NhwcMaxPool", [some(dtype, 2, 7, 9, 5)], attrs)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
@pytest.mark.parametrize("axis", [None, 0])
def test_quantize_and_back(dtype, axis):
    x = (50 * RNG.standard_normal((3, 4))).astype(np.float32)
    scale, zero = (
        (np.float32(0.3), dtype(7)) if axis is None else (np.float32([0.1, 0.5, 2]), np.arange(3, dtype=dtype))
    )
    attrs = {} if axis is None else {"axis": axis}
    check("QuantizeLinear", [x, scale, zero], attrs)
    check("DequantizeLinear", [RNG.integers(0, 99, (3, 4)).astype(dtype), scale, zero], attrs)


COLUMNS = pytest.mark.parametrize("columns", [False, True], ids=["one scale", "a scale each column"])


def weights(columns):
    """A quantised matrix, whose values onnxruntime's 16-bit sums can hold, its scale and zero point."""
    if columns:
        return some(np.int8, 6, 3) // 2, np.float32([0.1, 0.02, 0.3]), np.int8([1, 2, -3])
    return some(np.int8, 6, 3) // 2, np.float32([0.1]), np.int8([3])


@COLUMNS
@pytest.mark.parametrize("bias", [False, True])
def test_integers_to_float(columns, bias):
    b, scale, zero = weights(columns)
    inputs = [some(np.uint8, 2, 4, 6), b, np.float32(0.07), scale, np.uint8(9), zero]
    check("MatMulIntegerToFloat", inputs + [RNG.standard_normal(3).astype(np.float32)] * bias, rtol=1e-6)


@COLUMNS
@pytest.mark.parametrize("bias", [False, True])
def test_dynamic_quantization(columns, bias):
    b, scale, zero = weights(columns)
    inputs = [RNG.standard_normal((2, 4, 6)).astype(np.float32), b, scale, zero]
    check("DynamicQuantizeMatMul", inputs + [RNG.standard_normal(3).astype(np.float32)] * bias, rtol=1e-6)
