"""The operators, one file per section of the ONNX specification. Importing this package registers them all."""

from modeldiff_jax.models.onnx.ops import (
    activation,
    contrib_quantized,
    controlflow,
    conv,
    generator,
    indexing,
    integer,
    logical,
    math,
    nn,
    pool,
    quantization,
    reduction,
    resize,
    rnn,
    tensor,
)

__all__ = [
    "activation",
    "contrib_quantized",
    "controlflow",
    "conv",
    "generator",
    "indexing",
    "integer",
    "logical",
    "math",
    "nn",
    "pool",
    "quantization",
    "reduction",
    "resize",
    "rnn",
    "tensor",
]
