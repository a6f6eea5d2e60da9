"""Recurrent layers against onnxruntime."""

import numpy as np
import pytest

from tests.models.onnx.helpers import check_node, check_transforms, expected, node_model

RNG = np.random.default_rng(0)
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STEPS, BATCH, IN, HIDDEN = 5, 3, 4, 2
LENGTHS = np.int32([5, 2, 3])


def f32(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def inputs_of(op, directions=1, bias=True, lengths=None, states=False, peepholes=False, steps=STEPS):
    """X, W, R, B, sequence_lens, initial_h, initial_c, P."""
    g = GATES[op] * HIDDEN
    result = [f32(steps, BATCH, IN), f32(directions, g, IN), f32(directions, g, HIDDEN)]
    result += [f32(directions, 2 * g) if bias else None, lengths]
    state = f32(directions, BATCH, HIDDEN) if states else None
    result += [state]
    if op == "LSTM":
        result += [state, f32(directions, 3 * HIDDEN) if peepholes else None]
    return result


def check(op, inputs, attrs=None, opset=14, concrete=False):
    n = 3 if op == "LSTM" else 2
    check_node(op, inputs, {"hidden_size": HIDDEN, **(attrs or {})}, opset, n_outputs=n, concrete=concrete, atol=2e-6)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_directions(op, direction, lengths):
    directions = 2 if direction == "bidirectional" else 1
    check(op, inputs_of(op, directions, lengths=lengths, states=True), {"direction": direction}, opset=7)


@pytest.mark.parametrize("op", GATES)
def test_everything_optional_left_out(op):
    check(op, inputs_of(op, bias=False)[:3], concrete=True)


@pytest.mark.parametrize("op", GATES)
def test_one_step(op):
    check(op, inputs_of(op, states=True, steps=1))


@pytest.mark.parametrize("op", GATES)
def test_clip(op):
    check(op, inputs_of(op), {"clip": 0.5})


@pytest.mark.parametrize("linear", [0, 1])
def test_gru_resets_before_or_after(linear):
    check("GRU", inputs_of("GRU", 2), {"linear_before_reset": linear, "direction": "bidirectional"})


def test_lstm_peepholes():
    check("LSTM", inputs_of("LSTM", 2, states=True, peepholes=True), {"direction": "bidirectional"})


def test_lstm_coupled_gates():
    check("LSTM", inputs_of("LSTM", states=True), {"input_forget": 1})


@pytest.mark.parametrize(("op", "attrs"), [
    ("RNN", {"activations": ["Relu"]}), ("RNN", {"activations": ["Softsign"]}),
    ("RNN", {"activations": ["LeakyRelu"], "activation_alpha": [0.3]}),
    ("RNN", {"activations": ["Affine"], "activation_alpha": [0.3], "activation_beta": [0.1]}),
    ("RNN", {"activations": ["ScaledTanh"], "activation_alpha": [0.7], "activation_beta": [0.5]}),
    ("RNN", {"activations": ["ThresholdedRelu"], "activation_alpha": [0.2]}),
    ("RNN", {"activations": ["Elu"], "activation_alpha": [0.5]}),
    ("GRU", {"activations": ["HardSigmoid", "Tanh"], "activation_alpha": [0.3], "activation_beta": [0.4]}),
    ("LSTM", {"activations": ["HardSigmoid", "Relu", "Tanh"], "activation_alpha": [0.3], "activation_beta": [0.4]}),
])  # fmt: skip
def test_activations(op, attrs):
    check(op, inputs_of(op), attrs)


def test_softplus():  # onnxruntime's is infinite now and then
    x, w, r = inputs_of("RNN")[:3]
    want, h = [], np.zeros((BATCH, HIDDEN))
    for step in x:
        h = np.logaddexp(step @ w[0].T + h @ r[0].T, 0)
        want.append(h)
    y = np.stack(want)[:, None].astype(np.float32)
    attrs = {"activations": ["Softplus"], "hidden_size": HIDDEN}
    check_node("RNN", [x, w, r], attrs, 14, 2, want=[y, y[-1]], atol=2e-6)


@pytest.mark.parametrize("op", GATES)
def test_batch_first_layout(op):
    inputs = inputs_of(op, 2, states=True)
    n = 3 if op == "LSTM" else 2
    attrs = {"hidden_size": HIDDEN, "direction": "bidirectional"}
    feeds = {f"x{i}": v for i, v in enumerate(inputs) if v is not None}
    y, *states = expected(node_model(op, inputs, attrs, 14, n), feeds)
    want = [y.transpose(2, 0, 1, 3), *(s.swapaxes(0, 1) for s in states)]
    turned = [v.swapaxes(0, 1) if v is not None and i in (0, 5, 6) else v for i, v in enumerate(inputs)]
    check_node(op, turned, {**attrs, "layout": 1}, 14, n, want=want, concrete=False, atol=2e-6)


def test_transforms():
    check_transforms("GRU", inputs_of("GRU", states=True, steps=2), {"hidden_size": HIDDEN}, opset=14)


def test_transforms_of_sequences_of_several_lengths():
    check_transforms("LSTM", inputs_of("LSTM", lengths=LENGTHS), {"direction": "reverse", "hidden_size": HIDDEN})
