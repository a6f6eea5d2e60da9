"""The operators, one file per section of the ONNX specification. Importing this package registers them all."""

from modeldiff_jax.models.onnx.ops import (
    activation,
    attention,
    controlflow,
    conv,
    generator,
    indexing,
    logical,
    loss,
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
    "attention",
    "controlflow",
    "conv",
    "generator",
    "indexing",
    "logical",
    "loss",
    "math",
    "nn",
    "pool",
    "quantization",
    "reduction",
    "resize",
    "rnn",
    "tensor",
]
