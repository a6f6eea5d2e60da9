"""Conv and ConvTranspose against onnxruntime, over their attributes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

import modeldiff_jax as md
from bench.workloads import NETWORKS, onnx_model
from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.onnx.ops.conv import conv, conv_transpose

OPERATORS = {"Conv": conv, "ConvTranspose": conv_transpose}


def onnxruntime_result(op_type, inputs, attributes):
    """Returns the output of onnxruntime for one node."""
    names = "xwb"[: len(inputs)]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in zip(names, inputs, strict=True)]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * inputs[0].ndim)
    graph = helper.make_graph([helper.make_node(op_type, list(names), ["y"], **attributes)], "g", values, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(names, inputs, strict=True)))[0]


def random_inputs(op_type, x_shape, w_shape, attributes):
    """Input, filter and bias."""
    rng = np.random.default_rng(0)
    channels = w_shape[0] if op_type == "Conv" else w_shape[1] * attributes.get("group", 1)
    return [rng.standard_normal(shape).astype(np.float32) for shape in (x_shape, w_shape, (channels,))]


CONV = {
    "plain": ((2, 3, 8, 9), (4, 3, 3, 3), {}),
    "padded": ((2, 3, 8, 9), (4, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    "uneven pads": ((1, 3, 8, 9), (4, 3, 3, 2), {"pads": [2, 0, 1, 3], "strides": [2, 3]}),
    "kernel shape given": ((1, 3, 8, 9), (4, 3, 3, 2), {"kernel_shape": [3, 2]}),
    "dilated": ((1, 3, 12, 13), (4, 3, 3, 3), {"dilations": [2, 3], "pads": [2, 3, 2, 3]}),
    "strided": ((2, 16, 11, 12), (32, 16, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "one tap": ((2, 8, 7, 7), (16, 8, 1, 1), {}),
    "one tap strided": ((2, 8, 7, 8), (16, 8, 1, 1), {"strides": [2, 2]}),
    "one tap padded": ((2, 8, 5, 5), (4, 8, 1, 1), {"pads": [1, 0, 2, 1], "strides": [1, 2]}),
    "blocks": ((2, 3, 16, 16), (8, 3, 4, 4), {"strides": [4, 4]}),
    "blocks with rest and pads": ((2, 3, 15, 17), (8, 3, 4, 4), {"strides": [4, 4], "pads": [1, 0, 1, 0]}),
    "stride beyond taps": ((1, 3, 16, 17), (8, 3, 2, 2), {"strides": [3, 5]}),
    "same upper": ((1, 3, 8, 9), (4, 3, 4, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same lower": ((1, 3, 8, 9), (4, 3, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "same, stride beyond taps": ((1, 3, 9, 10), (4, 3, 1, 2), {"auto_pad": "SAME_UPPER", "strides": [3, 3]}),
    "valid": ((1, 3, 8, 9), (4, 3, 3, 3), {"auto_pad": "VALID"}),
    "two groups": ((2, 8, 9, 9), (6, 4, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "eight groups of one tap": ((2, 32, 5, 5), (16, 4, 1, 1), {"group": 8}),
    "sixteen groups": ((2, 32, 7, 7), (64, 2, 3, 3), {"group": 16, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "depthwise": ((2, 6, 9, 10), (6, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1]}),
    "depthwise strided": ((2, 6, 9, 10), (6, 1, 5, 5), {"group": 6, "pads": [2, 2, 2, 2], "strides": [2, 2]}),
    "depthwise dilated": ((1, 6, 12, 12), (6, 1, 3, 3), {"group": 6, "dilations": [2, 3], "strides": [3, 2]}),
    "depthwise same": ((1, 6, 8, 9), (6, 1, 4, 3), {"group": 6, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "depthwise multiplied": ((2, 6, 9, 9), (18, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1]}),
    "depthwise of many taps": ((1, 4, 20, 20), (4, 1, 9, 9), {"group": 4, "pads": [4, 4, 4, 4]}),
    "one channel": ((2, 1, 8, 8), (5, 1, 3, 3), {"group": 1}),
    "1-d": ((2, 3, 20), (4, 3, 5), {"pads": [2, 1], "strides": [2], "dilations": [2]}),
    "1-d depthwise": ((2, 6, 20), (6, 1, 5), {"group": 6, "pads": [2, 2], "strides": [3]}),
    "3-d": ((1, 3, 6, 7, 8), (4, 3, 3, 2, 3), {"pads": [1, 0, 1, 1, 1, 0], "strides": [2, 1, 2]}),
    "3-d depthwise": ((1, 4, 6, 7, 8), (4, 1, 3, 3, 3), {"group": 4, "pads": [1] * 6, "strides": [1, 2, 2]}),
    "winograd's case": ((8, 64, 16, 16), (64, 64, 3, 3), {"pads": [1, 1, 1, 1]}),
}

TRANSPOSE = {
    "plain": ((2, 3, 5, 6), (3, 4, 3, 3), {}),
    "padded": ((2, 3, 5, 6), (3, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
    "strided": ((2, 3, 5, 6), (3, 4, 3, 2), {"strides": [3, 2]}),
    "stride as long as the taps": ((2, 8, 5, 6), (8, 4, 2, 2), {"strides": [2, 2]}),
    "stride as long as the taps, padded": ((2, 8, 5, 6), (8, 4, 2, 3), {"strides": [2, 3], "pads": [1, 0, 0, 2]}),
    "stride beyond the taps": ((1, 3, 4, 5), (3, 4, 2, 2), {"strides": [3, 4]}),
    "one tap": ((2, 3, 5, 6), (3, 4, 1, 1), {"strides": [2, 1]}),
    "output padding": ((1, 3, 5, 5), (3, 4, 3, 3), {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1]}),
    "output padding of blocks": ((1, 3, 5, 5), (3, 4, 2, 2), {"strides": [2, 2], "output_padding": [1, 1]}),
    "output shape": ((1, 3, 5, 5), (3, 4, 3, 3), {"strides": [3, 2], "output_shape": [10, 8]}),
    "output shape, larger": ((1, 3, 5, 5), (3, 4, 3, 3), {"strides": [3, 2], "output_shape": [16, 12]}),
    "output shape, same upper": (
        (1, 3, 5, 5),
        (3, 4, 4, 3),
        {"strides": [3, 2], "output_shape": [12, 8], "auto_pad": "SAME_UPPER"},
    ),
    "same upper": ((1, 3, 5, 5), (3, 4, 4, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "same lower": ((1, 3, 5, 5), (3, 4, 4, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "dilated": ((1, 3, 5, 5), (3, 4, 3, 3), {"dilations": [2, 3], "strides": [2, 1]}),
    "two groups": ((2, 6, 5, 5), (6, 4, 3, 3), {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "twelve groups": ((2, 24, 5, 5), (24, 2, 3, 3), {"group": 12, "strides": [2, 2]}),
    "depthwise": ((2, 6, 5, 5), (6, 1, 4, 4), {"group": 6, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "1-d": ((2, 3, 9), (3, 4, 5), {"strides": [3], "pads": [1, 2]}),
    "3-d": ((1, 3, 3, 4, 3), (3, 4, 2, 3, 2), {"strides": [2, 1, 2], "pads": [0, 1, 0, 1, 0, 1]}),
}

CASES = [pytest.param("Conv", *case, id=f"Conv, {name}") for name, case in CONV.items()]
CASES += [pytest.param("ConvTranspose", *case, id=f"ConvTranspose, {name}") for name, case in TRANSPOSE.items()]


@pytest.mark.parametrize(("op_type", "x_shape", "w_shape", "attributes"), CASES)
def test_agrees_with_onnxruntime_and_its_gradient_is_the_transposed_map(op_type, x_shape, w_shape, attributes):
    x, w, b = random_inputs(op_type, x_shape, w_shape, attributes)
    expected = onnxruntime_result(op_type, [x, w, b], attributes)
    g = np.random.default_rng(1).standard_normal(expected.shape).astype(np.float32)

    @jax.jit
    def value_and_gradient(x, w, b, g):
        y, back = jax.vjp(lambda x: OPERATORS[op_type](x, w, b, **attributes), x)
        return y, back(g)[0]

    y, to_x = value_and_gradient(x, w, b, g)
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    # <A x, g> = <x, A* g>
    linear = np.asarray(y, np.float64) - b.reshape(-1, *[1] * (y.ndim - 2))
    tolerance = 1e-6 * float(np.linalg.norm(linear) * np.linalg.norm(g))
    assert np.vdot(np.asarray(to_x, np.float64), x) == pytest.approx(np.vdot(linear, g), abs=tolerance)


def test_bias_is_optional_and_channels_may_be_concrete():
    x, w, b = random_inputs("Conv", (1, 3, 6, 6), (4, 3, 3, 3), {})
    np.testing.assert_allclose(conv(x, w) + b[None, :, None, None], conv(x, w, b), rtol=1e-6)


@pytest.mark.parametrize(
    ("w_shape", "attributes", "rule"),
    [
        ((4, 2, 3, 3), {}, "input's channels"),
        ((4, 3, 3), {}, "rank"),
        ((4, 3, 3, 3), {"kernel_shape": [2, 2]}, "kernel_shape"),
        ((4, 3, 3, 3), {"strides": [1]}, "one for each spatial axis"),
        ((4, 3, 3, 3), {"strides": [0, 1]}, "positive"),
        ((4, 3, 3, 3), {"pads": [1, 1]}, "two entries"),
        ((4, 3, 3, 3), {"auto_pad": "SAME"}, "auto_pad"),
    ],
)
def test_refuses_what_does_not_fit(w_shape, attributes, rule):
    with pytest.raises(InvalidInputError, match=rule):
        conv(np.zeros((1, 3, 8, 8), np.float32), np.zeros(w_shape, np.float32), **attributes)


def test_vmap_over_stacked_filters():
    x, w, _ = random_inputs("Conv", (2, 8, 9, 9), (6, 4, 3, 3), {"group": 2})
    stacked = jnp.stack([w, 2 * w, -w])
    y = jax.vmap(lambda w: conv(x, w, group=2, pads=[1, 1, 1, 1]))(stacked)
    for factor, one in zip((1, 2, -1), y, strict=True):
        np.testing.assert_allclose(one, factor * conv(x, w, group=2, pads=[1, 1, 1, 1]), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the order of a filter's axes matters to XLA on CPU only")
@pytest.mark.parametrize("strides", [[1, 1], [2, 2]])
def test_filters_keep_the_fast_order_inside_a_compiled_loop(strides):
    """Stored as (taps, outputs, inputs) they would be convolved by naive code, 3 to 10 times slower."""
    x, w, _ = random_inputs("Conv", (2, 16, 8, 8), (16, 16, 3, 3), {})

    def loop(x, w):
        def step(_, x):
            return x - jax.grad(lambda x: jnp.sum(conv(x, w, pads=[1] * 4, strides=strides) ** 2))(x)

        return jax.lax.fori_loop(0, 3, step, x)

    labels = re.findall(r"dim_labels=\w+_(\w+)->", jax.jit(loop).lower(x, w).compile().as_text())
    assert labels
    assert set(labels) == {"01io"}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_the_networks_of_the_benchmarks_agree_with_onnxruntime(network, tmp_path):
    path = tmp_path / "network.onnx"
    path.write_bytes(onnx_model(network).SerializeToString())
    x = np.random.default_rng(0).random((2, *network.shape), np.float32)
    expected = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    np.testing.assert_allclose(md.load(path)(x), expected, rtol=0, atol=2e-6 * np.abs(expected).max())
