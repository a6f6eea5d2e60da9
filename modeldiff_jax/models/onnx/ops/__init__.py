"""The operators, one file per section of the ONNX specification. Importing this package registers them all."""

from modeldiff_jax.models.onnx.ops import (
    activation,
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
