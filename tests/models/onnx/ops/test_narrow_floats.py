"""Operators of float16 and bfloat16 add, square and multiply in float32, and round once."""

import jax
import ml_dtypes
import numpy as np
import pytest

from tests.models.onnx.helpers import convert, expected, node_model, split_static

NARROW = [np.float16, ml_dtypes.bfloat16]
RNG = np.random.default_rng(0)


def normal(*shape, scale=1.0, shift=0.0):
    return (RNG.standard_normal(shape) * scale + shift).astype(np.float32)


def large(*shape):
    """Positive numbers whose sum, and whose squares, float16 does not hold."""
    return np.abs(normal(*shape, scale=300)) + 200


IMAGE, WIDE = large(1, 4, 16, 16) * 8, normal(1, 4, 8, 8, scale=3000)
CHANNEL = (normal(4, shift=1), normal(4, scale=100), normal(4, scale=1000), large(4) * 20)  # as BatchNormalization has
SCORES, LABELS = normal(300, 5, scale=300), RNG.integers(0, 5, 300)
GRID = (RNG.random((1, 5, 5, 2)) * 2 - 1).astype(np.float32)
BOXES, FIRST = np.float32([[0, 0, 7, 5], [1, 1, 3, 3]]), np.int64([0, 0])
STEPS = normal(40, 2, 6)
MS = "com.microsoft"

# operator, inputs, attributes, opset[, domain]
CASES = [
    ("AveragePool", [IMAGE], {"kernel_shape": [8, 8], "strides": [8, 8]}, 11),
    ("AveragePool", [IMAGE], {"kernel_shape": [6, 6], "pads": [2, 2, 2, 2], "strides": [5, 5]}, 11),
    ("LpPool", [IMAGE], {"kernel_shape": [4, 4]}, 11),
    ("GlobalAveragePool", [IMAGE], {}, 1),
    ("GlobalLpPool", [IMAGE], {"p": 3}, 2),
    ("InstanceNormalization", [WIDE, *CHANNEL[:2]], {}, 6),
    ("BatchNormalization", [WIDE + CHANNEL[2][:, None, None], *CHANNEL], {}, 15),
    ("LayerNormalization", [WIDE, np.ones(8, np.float32), np.zeros(8, np.float32)], {}, 17),
    ("GroupNormalization", [WIDE, np.ones(4, np.float32), np.zeros(4, np.float32)], {"num_groups": 2}, 21),
    ("MeanVarianceNormalization", [WIDE], {}, 13),
    ("LpNormalization", [WIDE], {"axis": 1}, 1),
    ("LpNormalization", [large(2, 400)], {"axis": 1, "p": 1}, 1),
    ("LRN", [WIDE], {"size": 3, "alpha": 1e-3}, 13),
    ("ReduceSum", [normal(2, 3000, shift=3), np.int64([1])], {}, 13),
    ("ReduceMean", [large(2, 3000), np.int64([1])], {}, 18),
    ("ReduceProd", [np.float32([[300, 300, 1e-3, 2], [1, 2, 3, 4]]), np.int64([1])], {}, 18),
    ("ReduceL1", [normal(2, 3000), np.int64([1])], {}, 18),
    ("ReduceL2", [large(2, 64), np.int64([1])], {}, 18),
    ("ReduceSumSquare", [normal(2, 3000), np.int64([1])], {}, 18),
    ("ReduceLogSum", [large(2, 3000), np.int64([1])], {}, 18),
    ("ReduceLogSumExp", [normal(2, 3000), np.int64([1])], {}, 18),
    ("Softmax", [normal(2, 3000)], {}, 13),
    ("Softmax", [np.zeros((1, 70_000), np.float32)], {}, 13),
    ("LogSoftmax", [normal(2, 3000)], {}, 13),
    ("Sum", [np.float32([6e4, 1]), np.float32([6e4, 2]), np.float32([-6e4, 3])], {}, 13),
    ("Mean", [np.float32([6e4, 1]), np.float32([5e4, 2]), np.float32([4e4, 3])], {}, 13),
    ("Gemm", [large(2, 40), large(40, 3), normal(3, scale=1e4)], {"alpha": 1e-3, "beta": 0.5}, 13),
    ("Gemm", [np.full((1, 2), 200.0, np.float32), large(2, 3) * 0.1 + 150, np.full((1, 3), -6e4, np.float32)], {}, 13),
    ("MatMul", [normal(2, 3000), normal(3000, 3)], {}, 13),
    ("Einsum", [large(2, 4), large(4, 3), normal(3, 2, scale=1e-3)], {"equation": "ij,jk,kl->il"}, 12),
    ("Einsum", [normal(2, 3000)], {"equation": "ij->i"}, 12),
    ("CumSum", [normal(1, 3000, shift=3), np.asarray(1)], {}, 14),
    ("Det", [normal(2, 3, 3, scale=100) * np.float32([[1e-3], [1], [1e-2]])], {}, 11),
    ("Conv", [large(1, 3, 6, 6), large(2, 3, 3, 3) / 80, np.float32([-5e4, -4e4])], {}, 11),
    ("Conv", [large(1, 3, 6, 6), large(3, 1, 3, 3) / 25, np.full(3, -5e4, np.float32)], {"group": 3}, 11),
    ("ConvTranspose", [large(1, 3, 6, 6), large(3, 2, 3, 3) / 80, np.float32([-5e4, -4e4])], {}, 11),
    ("GridSample", [large(1, 2, 9, 9) * 50, GRID], {"mode": "linear"}, 20),
    ("GridSample", [large(1, 2, 9, 9) * 20, GRID], {"mode": "cubic", "padding_mode": "border"}, 20),
    ("AffineGrid", [normal(2, 2, 3, scale=100), np.int64([2, 1, 5, 6])], {}, 20),
    ("RoiAlign", [large(1, 2, 8, 8), BOXES, FIRST], {"output_height": 2, "output_width": 2, "sampling_ratio": 12}, 16),
    ("MaxRoiPool", [large(1, 2, 8, 8), np.float32([[0, 0, 0, 7, 5]])], {"pooled_shape": [2, 2]}, 1),
    ("DeformConv", [large(1, 2, 5, 5), large(2, 2, 3, 3) / 80, normal(1, 18, 3, 3)], {}, 19),
    ("Resize", [large(1, 2, 7, 7) * 50, None, np.float32([1, 1, 1.7, 2.3])], {"mode": "linear"}, 13),
    ("Resize", [large(1, 2, 7, 7) * 20, None, np.float32([1, 1, 1.7, 2.3])], {"mode": "cubic"}, 13),
    ("RNN", [STEPS, normal(1, 5, 6), normal(1, 5, 5, scale=0.4)], {"hidden_size": 5}, 14),
    ("GRU", [STEPS, normal(1, 15, 6), normal(1, 15, 5, scale=0.4)], {"hidden_size": 5}, 14),
    ("LSTM", [STEPS, normal(1, 20, 6), normal(1, 20, 5, scale=0.4)], {"hidden_size": 5}, 14),
    ("ScatterElements", [np.zeros((1, 4), np.float32), np.full((1, 3000), 2), np.ones((1, 3000), np.float32)],
     {"axis": 1, "reduction": "add"}, 18),
    ("ScatterND", [np.ones(4, np.float32), np.int64([[0], [0], [0]]), np.float32([3e4, 4, 1e-3])],
     {"reduction": "mul"}, 18),
    ("Col2Im", [large(1, 9, 9) * 10, np.int64([5, 5]), np.int64([3, 3])], {}, 18),
    ("NegativeLogLikelihoodLoss", [SCORES, LABELS], {"reduction": "mean"}, 13),
    ("SoftmaxCrossEntropyLoss", [SCORES, LABELS], {"reduction": "mean"}, 13),
    ("Celu", [normal(100)], {"alpha": 0.3}, 12),
    ("Elu", [normal(100)], {"alpha": 0.3}, 6),
    ("Gelu", [normal(100)], {"approximate": "tanh"}, 20),
    ("Mish", [normal(100)], {}, 18),
    ("SkipLayerNormalization", [WIDE[0] * 4, WIDE[0] * 5, np.ones(8, np.float32)], {}, 17, MS),
    ("SkipSimplifiedLayerNormalization", [WIDE[0] * 4, WIDE[0] * 5, np.ones(8, np.float32)], {}, 17, MS),
    ("FusedMatMul", [large(2, 40), large(40, 3)], {"alpha": 1e-3}, 17, MS),
    ("FusedGemm", [large(2, 40), large(40, 3), normal(3)], {"alpha": 1e-3, "activation": "Relu"}, 17, MS),
]  # fmt: skip
# evaluated in numpy where all inputs are known
FOLDED = {
    "AffineGrid", "BatchNormalization", "Einsum", "Gemm", "InstanceNormalization", "LRN", "MatMul", "Mean",
    "MeanVarianceNormalization", "NegativeLogLikelihoodLoss", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceMean",
    "ReduceProd", "ReduceSum", "ReduceSumSquare", "ScatterElements", "ScatterND", "SoftmaxCrossEntropyLoss", "Sum",
}  # fmt: skip


class Narrow:
    """A case with its float32 inputs in a narrower type, and what onnxruntime gives for the same numbers in float32."""

    def __init__(self, case, dtype):
        op, inputs, attrs, opset, domain = (*case, "")[:5]
        scales = 2 if op == "Resize" else None  # they are float32 whatever the image is
        short = [value if i == scales else narrow(value, dtype) for i, value in enumerate(inputs)]
        wide = [value.astype(np.float32) if value is not None and value.dtype == dtype else value for value in short]
        (want, *_) = expected(node_model(op, wide, attrs, opset, domain=domain), named(wide))
        self.dtype, self.want = np.dtype(dtype), want.astype(dtype).astype(np.float32)
        self.proto, self.feeds = node_model(op, short, attrs, opset, domain=domain), named(short)
        self.model = convert(self.proto)

    def compare(self, got):
        """Within two units in the last place."""
        assert got.dtype == self.dtype
        tolerance = 2 * float(ml_dtypes.finfo(self.dtype).eps)
        np.testing.assert_allclose(np.asarray(got, np.float32), self.want, tolerance, 1e-6)


def narrow(value, dtype):
    return value.astype(dtype) if value is not None and value.dtype == np.float32 else value


def named(values):
    return {f"x{i}": value for i, value in enumerate(values) if value is not None}


@pytest.mark.parametrize("dtype", NARROW, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_as_in_float32(case, dtype):
    result = Narrow(case, dtype)
    bound, traced = split_static(result.proto, result.model, result.feeds)
    result.compare(jax.jit(bound.apply)(bound.params, *traced))


@pytest.mark.parametrize("case", [case for case in CASES if case[0] in FOLDED], ids=lambda case: case[0])
def test_constants_fold_as_in_float32(case):  # numpy alone adds bfloat16 up in bfloat16
    result = Narrow(case, ml_dtypes.bfloat16)
    result.compare(result.model.apply(result.model.params, *result.feeds.values()))


@pytest.mark.parametrize("dtype", NARROW, ids=lambda dtype: np.dtype(dtype).name)
def test_running_statistics_keep_their_own_type(dtype):
    x, scale, bias = large(8, 3, 5).astype(dtype), np.ones(3, dtype), np.zeros(3, dtype)
    mean, variance = np.zeros(3, np.float32), np.ones(3, np.float32)
    proto = node_model("BatchNormalization", [x, scale, bias, mean, variance], {"training_mode": 1}, 15, 3)
    model = convert(proto)
    y, new_mean, new_variance = model.apply(model.params, x, scale, bias, mean, variance)
    assert (y.dtype, new_mean.dtype, new_variance.dtype) == (dtype, np.float32, np.float32)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(new_mean, 0.1 * exact.mean((0, 2)), 1e-5)
    np.testing.assert_allclose(new_variance, 0.9 + 0.1 * exact.var((0, 2)), 1e-5)
