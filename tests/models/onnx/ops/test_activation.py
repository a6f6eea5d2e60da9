"""Activation functions and softmax against onnxruntime."""

import jax
import numpy as np
import pytest
from onnx import helper, numpy_helper
from scipy import special

from tests.models.onnx.helpers import check_node, check_transforms, convert, info, node_model, whole

RNG = np.random.default_rng(0)
X = (3 * RNG.standard_normal((2, 3, 4))).astype(np.float32)
FAR = np.float32([-1000, -100, -20, 0, 20, 100, 1000])

CASES = [
    ("Relu", {}, 14), ("LeakyRelu", {}, 6), ("LeakyRelu", {"alpha": 0.3}, 16), ("Elu", {}, 6),
    ("Elu", {"alpha": 0.4}, 6),
    ("Selu", {}, 6), ("Selu", {"alpha": 1.5, "gamma": 2.0}, 6), ("Celu", {"alpha": 2.0}, 12), ("HardSigmoid", {}, 6),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}, 6), ("HardSwish", {}, 14), ("Softplus", {}, 1), ("Softsign", {}, 1),
    ("ThresholdedRelu", {}, 10), ("ThresholdedRelu", {"alpha": 0.5}, 10), ("Shrink", {"lambd": 1.5, "bias": 1.5}, 9),
    ("Shrink", {}, 9), ("Gelu", {}, 20), ("Gelu", {"approximate": "tanh"}, 20), ("Mish", {}, 18), ("Sigmoid", {}, 13),
]  # fmt: skip


@pytest.mark.parametrize(("op", "attrs", "opset"), CASES)
def test_activation(op, attrs, opset):
    check_node(op, [X], attrs, opset, atol=3e-6)


@pytest.mark.parametrize(("op", "attrs", "opset"), CASES)
def test_activation_transforms(op, attrs, opset):
    check_transforms(op, [X], attrs, opset)


@pytest.mark.parametrize(("op", "attrs", "opset"), CASES)
def test_slopes_stay_finite_far_out(op, attrs, opset):
    model = convert(node_model(op, [FAR], attrs, opset))
    assert np.isfinite(jax.grad(lambda x: model.apply(model.params, x).sum())(FAR)).all()


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_swish(alpha):
    check_node("Swish", [X], {"alpha": alpha}, 24, want=[X * special.expit(alpha * X)])


@pytest.mark.parametrize(("slope", "opset"), [
    (np.float32([0.1, 0.2, 0.3, 0.4]), 7), (np.float32([[0.1], [0.2], [0.3]]), 9), (np.float32([0.25]), 16),
])  # fmt: skip
def test_prelu(slope, opset):
    check_node("PRelu", [X, slope], opset=opset)
    check_transforms("PRelu", [X, slope], opset=opset)


def test_prelu_slopes_belong_to_channels_before_opset_7():
    slope = np.float32([0.1, 0.2, 0.3])
    check_node("PRelu", [X, slope], opset=6, want=[np.where(X < 0, slope[:, None] * X, X)])


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("opset", [1, 11, 12, 13])
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_softmax(op, opset, axis):
    check_node(op, [X], {} if axis is None else {"axis": axis}, opset)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("opset", [11, 13])
def test_softmax_transforms(op, opset):
    check_transforms(op, [X], {"axis": 1}, opset)


MASKED = np.float32([[-np.inf, -np.inf, -np.inf], [0, -np.inf, 1], [np.inf, 0, 1], [3e38, -3e38, -np.inf]])


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("opset", [11, 13])
def test_minus_infinity_has_no_share(op, opset):
    check_node(op, [MASKED], {}, opset)


def test_a_guard_behind_a_masked_softmax_fires():
    """Attention as torch.onnx.export writes it: a query whose keys are all masked gives zeros."""
    scores = np.float32([[1, 2, 3], [4, 5, 6]])
    mask = np.array([[True, False, True], [False, False, False]])
    constants = {"zero": np.float32(0), "low": np.float32(-np.inf)}
    graph = helper.make_graph(
        [
            helper.make_node("Where", ["mask", "zero", "low"], ["bias"]),
            helper.make_node("Add", ["scores", "bias"], ["masked"]),
            helper.make_node("Softmax", ["masked"], ["shares"], axis=-1),
            helper.make_node("IsNaN", ["shares"], ["blind"]),
            helper.make_node("Where", ["blind", "zero", "shares"], ["y"]),
        ],
        "masked",
        [info("scores", scores), info("mask", mask)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    want = [[special.expit(-2), 0, special.expit(2)], [0, 0, 0]]
    np.testing.assert_allclose(convert(whole(graph, 17))(scores, mask), want, rtol=1e-6)


def test_averages_far_out_are_rounded_before_a_softmax():
    """XLA would skip the rounding between the average's last product and the subtraction of the maximum."""
    x = (1e10 * RNG.standard_normal((4, 10, 7, 7))).astype(np.float32)
    names = ["x", "mean", "flat", "y"]
    nodes = [
        helper.make_node(op, [a], [b])
        for op, a, b in zip(["GlobalAveragePool", "Flatten", "Softmax"], names[:-1], names[1:], strict=True)
    ]
    graph = helper.make_graph(nodes, "far", [info("x", x)], [helper.make_empty_tensor_value_info("y")])
    y = np.asarray(convert(whole(graph, 17))(x))
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-6)
