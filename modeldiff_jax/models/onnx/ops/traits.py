"""The traits of ONNX's operators: what passes over graphs may rely on. One table a trait."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from modeldiff_jax.models.graph.traits import Attributes, Order, declare
from modeldiff_jax.models.onnx.registration import ONNX

# fmt: off
declare(
    ONNX,
    "Abs", "Add", "Cast", "Ceil", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
    "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "Reciprocal",
    "Relu", "Round", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu",
    "Where",
    # the first versions of some broadcast by an axis they name
    elementwise=lambda attributes: "axis" not in attributes,
)
declare(
    ONNX,
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool",
    "LpPool", "MaxPool",
    channel_axis=1,
)
declare(ONNX, "Shape", "Size", reads_shapes=True)
declare(
    ONNX,
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli",
    random=True,
)
declare(
    ONNX, "Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", passes_indices=True
)
declare(
    ONNX,
    "Compress", "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape",
    "ReverseSequence", "Scatter", "ScatterElements", "ScatterND", "Slice", "Split", "Squeeze", "Tile", "Transpose",
    "Unsqueeze", "Where",
    moves_elements=True,
)
declare("ai.onnx.ml", "ArrayFeatureExtractor", moves_elements=True)
declare(ONNX, "Cast", "CastLike", "Equal", "RegexFullMatch", "StringConcat", reads_each_string=True)
declare("ai.onnx.ml", "CategoryMapper", "LabelEncoder", "OneHotEncoder", reads_each_string=True)
# fmt: on
declare(ONNX, "If", deciding=(0,), branches=True)
declare(ONNX, "Loop", deciding=(0, 1))


def _filters(position: int, rank: int, attributes: Attributes) -> Order | None:
    """(outputs, inputs, taps...) are read as (taps..., inputs, outputs)."""
    return (*range(2, rank), 1, 0) if position == 1 and rank > 2 else None


def _recurrent(position: int, rank: int, attributes: Attributes) -> Order | None:
    """(directions, gates, size), the weights of input and state, are read as (directions, size, gates)."""
    return (0, 2, 1) if position in (1, 2) and rank == 3 else None


def _transposed_factor(position: int, rank: int, attributes: Attributes) -> Order | None:
    return (1, 0) if position == 1 and rank == 2 and attributes.get("transB") else None


declare(ONNX, "Conv", weight_order=_filters)
declare(ONNX, "LSTM", "GRU", "RNN", weight_order=_recurrent)
declare(ONNX, "Gemm", weight_order=_transposed_factor)


def _rows_of_table(attributes: Attributes, inputs: Sequence[jax.Array | np.ndarray | None]) -> int | None:
    table = inputs[0]
    return None if table is None else int(table.shape[int(attributes.get("axis", 0))])


def _classes(attributes: Attributes, inputs: Sequence[jax.Array | np.ndarray | None]) -> int | None:
    depth = inputs[1]
    return None if depth is None else int(np.asarray(depth).reshape(-1)[0])


declare(ONNX, "Gather", index_bound=_rows_of_table, index_position=1)
declare(ONNX, "OneHot", index_bound=_classes)
