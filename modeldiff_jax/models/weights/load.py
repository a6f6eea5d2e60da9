"""A weight file -> arrays by name, by its content and never by its name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from modeldiff_jax.errors import InvalidModelError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.files import map_file
from modeldiff_jax.models.weights.safetensors import is_safetensors, read_safetensors
from modeldiff_jax.models.weights.torch_file import is_torch, read_torch


def load_weights(path: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> dict[str, np.ndarray]:
    """Reads a `.safetensors` file or a PyTorch `.pth` / `.pt` state dict. Nothing in it is run.

    Args:
      path: the file. PyTorch's may be of either of its formats, the zip archive or the older stream.
      limits: bounds on hostile input.
    Returns:
      Arrays by name, in the file's order: read-only views of the file, which is mapped and not read. Names of nested
      dictionaries are joined by dots; what is no tensor (an epoch, say) is left out.
    Raises:
      InvalidModelError: no such file, damaged, or another format.
      UnsafeModelError: it names code, which a state dict never does.
      UnsupportedModelError: a kind of tensor we do not have.
      LimitExceededError: a bound was hit.
    """
    file = Path(path)
    data = map_file(file, limits, "external_bytes")
    if is_torch(data):
        return read_torch(data, limits, str(file))
    if is_safetensors(data):
        return read_safetensors(data, limits, str(file))
    raise InvalidModelError(
        "A weight file is a .safetensors file or a PyTorch state dict",
        got="neither",
        where=str(file),
        fix="check the path; an ONNX model is opened by `load`",
    )
