"""Recurrent layers of `com.microsoft`, which onnxruntime's quantiser writes."""

from __future__ import annotations

from collections.abc import Sequence

from modeldiff_jax.models.graph.values import Value
from modeldiff_jax.models.onnx.ops.common import MICROSOFT
from modeldiff_jax.models.onnx.ops.contrib_quantized import dynamic_quantize_matmul
from modeldiff_jax.models.onnx.ops.rnn import Options, Product, long_short_term
from modeldiff_jax.models.onnx.registration import op


def _products(weights: Value, scales: Value, zero_points: Value) -> list[Product]:
    """Returns, for each direction, the product of a dynamically quantised tensor with its quantised weights."""

    def of_direction(d: int) -> Product:
        scale, zero_point = (values.reshape(len(weights), -1)[d] for values in (scales, zero_points))
        if scale.size == 1:
            scale, zero_point = scale.reshape(()), zero_point.reshape(())
        return lambda x: dynamic_quantize_matmul(x, weights[d], scale, zero_point)

    return [of_direction(d) for d in range(len(weights))]


@op("DynamicQuantizeLSTM", domain=MICROSOFT)
def dynamic_quantize_lstm(
    x: Value,
    w: Value,
    r: Value,
    b: Value,
    lengths: Value,
    initial_h: Value,
    initial_c: Value,
    peepholes: Value,
    w_scale: Value,
    w_zero: Value,
    r_scale: Value,
    r_zero: Value,
    /,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
) -> tuple[Value, ...]:
    """Runs an LSTM with quantised weights of (inputs, gates), quantising inputs and states dynamically."""
    options = Options(direction, activations, activation_alpha, activation_beta, clip, 0)
    products = _products(w, w_scale, w_zero), _products(r, r_scale, r_zero)
    hidden = r.shape[1]
    return long_short_term(x, *products, hidden, b, lengths, initial_h, initial_c, peepholes, input_forget, options)
