"""Draws have the distribution asked for, and are the same at every call."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from modeldiff_jax.models.onnx import backend

N = 20_000
X = np.zeros((N,), np.float32)


def drawn(op, inputs=(), **attributes):
    names = [f"x{i}" for i in range(len(inputs))]
    return backend.run_node(helper.make_node(op, names, ["y"], **attributes), list(inputs))[0]


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "mean", "deviation"),
    [
        ("RandomNormal", [], {"shape": [N], "mean": 3.0, "scale": 2.0}, 3, 2),
        ("RandomNormalLike", [X], {"scale": 0.5, "seed": 7.0}, 0, 0.5),
        ("RandomUniform", [], {"shape": [N], "low": -1.0, "high": 3.0}, 1, 4 / 12**0.5),
        ("RandomUniformLike", [X], {"seed": 1.5}, 0.5, 1 / 12**0.5),
        ("Bernoulli", [X + 0.25], {"seed": 2.0}, 0.25, (0.25 * 0.75) ** 0.5),
        ("Multinomial", [np.log(np.asarray([[1.0, 1.0, 2.0]], np.float32))], {"sample_size": N}, 1.25, 0.6875**0.5),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_moments_and_repetition(op, inputs, attributes, mean, deviation):
    y = drawn(op, inputs, **attributes)
    assert y.size == N
    assert abs(y.mean() - mean) < 5 * deviation / N**0.5
    assert abs(y.std() - deviation) < 0.05 * deviation
    np.testing.assert_array_equal(y, drawn(op, inputs, **attributes))
    assert (y != drawn(op, inputs, **{**attributes, "seed": 99.0})).any()


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_types(kind):
    y = drawn("RandomNormal", shape=[3], dtype=kind)
    assert y.dtype == helper.tensor_dtype_to_np_dtype(kind)


def test_nodes_without_a_seed_draw_apart_and_those_of_one_seed_alike():
    draws = [helper.make_node("RandomNormal", [], [name], shape=[100]) for name in ("a", "b")]
    draws += [helper.make_node("RandomNormal", [], [name], shape=[100], seed=3.0) for name in ("c", "d")]
    outputs = [helper.make_empty_tensor_value_info(name) for name in "abcd"]
    proto = helper.make_model(helper.make_graph(draws, "g", [], outputs))
    a, b, c, d = backend.run_model(proto, [])
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.5
    np.testing.assert_array_equal(c, d)
    for repeated, first in zip(backend.run_model(proto, []), (a, b, c, d), strict=True):
        np.testing.assert_array_equal(repeated, first)
