"""The operators, one file per section of the ONNX specification. Importing this package registers them all."""

from modeldiff_jax.models.onnx.ops import controlflow, conv, generator, logical, math, nn, pool, reduction, rnn, tensor

__all__ = ["controlflow", "conv", "generator", "logical", "math", "nn", "pool", "reduction", "rnn", "tensor"]
