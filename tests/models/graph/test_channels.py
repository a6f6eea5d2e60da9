"""Elementwise operators after convolutions, computed channels last: the same values, whatever broadcasts."""

import jax
import numpy as np
import pytest

from tests.helpers.onnx_graphs import model, node, tensor, value
from tests.models.onnx.helpers import assert_same, convert, expected

RNG = np.random.default_rng(0)
FILTERS = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
X = RNG.standard_normal((2, 3, 7, 5)).astype(np.float32)


def after_a_convolution(nodes, *others):
    """y = nodes of c, a convolution of x to (2, 4, 5, 3), and of constants a0, a1..."""
    constants = [tensor(f"a{i}", np.asarray(array)) for i, array in enumerate(others)]
    nodes = [node("Conv", "x w", "c", kernel_shape=[3, 3]), *nodes]
    return model(nodes, [value("x", X.shape)], [value("y", None)], [tensor("w", FILTERS), *constants], opset=20)


def drawn(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 1), (4, 1, 1), (2, 1, 1, 3), (2, 4, 5, 3), (2, 1, 4, 5, 3)])
def test_operands_broadcast_as_the_graph_says(shape, swapped):
    names = "a0 c" if swapped else "c a0"
    proto = after_a_convolution([node("Mul", names, "m"), node("Relu", "m", "y")], drawn(*shape))
    assert_same(convert(proto)(X), expected(proto, {"x": X}), rtol=1e-4, atol=1e-5)


CHAINS = {
    "limits": ([node("Clip", "c a0 a1", "y")], (np.float32(-0.5), np.float32(0.5))),
    "a choice": ([node("Greater", "c a0", "g"), node("Where", "g c a0", "y")], (np.float32(0.1),)),
    "slopes": ([node("PRelu", "c a0", "y")], (np.float32([0.1, 0.2, 0.3, 0.4]).reshape(4, 1, 1),)),
    "a sum of three": ([node("Sum", "c a0 c", "y")], (drawn(3),)),
    "two kernels": (
        [node("Tanh", "c", "t"), node("MaxPool", "t", "p", kernel_shape=[2, 2]), node("Exp", "p", "y")],
        (),
    ),
    "squeeze and excitation": (
        [
            node("HardSwish", "c", "h"),
            node("GlobalAveragePool", "h", "p"),
            node("Sigmoid", "p", "s"),
            node("Mul", "h s", "y"),
        ],
        (),
    ),
    "normalisation": (
        [node("BatchNormalization", "c a0 a1 a2 a3", "b"), node("Add", "b c", "y")],
        (drawn(4), drawn(4), drawn(4), np.abs(drawn(4)) + 0.5),
    ),
    "another order": (
        [node("Relu", "c", "r"), node("Transpose", "r", "t", perm=[0, 2, 3, 1]), node("Mul", "t a0", "y")],
        (drawn(4),),
    ),
}


@pytest.mark.parametrize(("nodes", "others"), CHAINS.values(), ids=CHAINS)
def test_chains_give_what_the_graph_says(nodes, others):
    proto = after_a_convolution(nodes, *others)
    assert_same(convert(proto)(X), expected(proto, {"x": X}), rtol=1e-4, atol=1e-5)


def test_no_tensor_is_turned_between_two_kernels():
    """Of moves in the compiled program only the input's is left, and the result's."""
    pointwise = np.float32(RNG.standard_normal((6, 4, 1, 1)))
    nodes = [*CHAINS["squeeze and excitation"][0][:-1], node("Mul", "h s", "m"), node("Conv", "m a0", "y")]
    model = convert(after_a_convolution(nodes, pointwise))
    text = jax.jit(model.apply).lower(model.params, X).compile().as_text()
    assert "f32[2,4,5,3]{3,2,1,0}" not in text, "the graph's order of axes, in memory"
    assert "f32[2,5,3,4]{3,2,1,0}" in text
