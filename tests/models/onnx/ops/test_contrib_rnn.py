"""Quantised recurrent layers against onnxruntime."""

import numpy as np
import pytest

from tests.models.onnx.helpers import check_node

RNG = np.random.default_rng(0)
STEPS, BATCH, INPUTS, HIDDEN = 5, 3, 6, 4


def f32(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("columns", [False, True], ids=["per tensor", "per column"])
@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_lstm(direction, kind, columns):
    n = 1 + (direction == "bidirectional")
    middle = 0 if kind == np.int8 else 128
    # 7 bits: onnxruntime adds pairs of products of 8 bits in 16 on CPUs without dot products of bytes
    w, r = (RNG.integers(middle - 63, middle + 64, (n, k, 4 * HIDDEN), kind) for k in (INPUTS, HIDDEN))
    shape = (n, 4 * HIDDEN) if columns else (n,)
    scales = [RNG.uniform(0.004, 0.02, shape).astype(np.float32) for _ in range(2)]
    zero = np.full(shape, middle, kind)
    state = [f32(n, BATCH, HIDDEN), f32(n, BATCH, HIDDEN), f32(n, 3 * HIDDEN)]
    inputs = [f32(STEPS, BATCH, INPUTS), w, r, f32(n, 8 * HIDDEN), None, *state, scales[0], zero, scales[1], zero]
    attrs = {"direction": direction, "hidden_size": HIDDEN}
    options = {"domain": "com.microsoft", "concrete": False, "rtol": 1e-4, "atol": 1e-5}
    check_node("DynamicQuantizeLSTM", inputs, attrs, 17, 3, **options)
