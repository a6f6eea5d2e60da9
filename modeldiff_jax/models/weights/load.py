"""Loads a weight file into arrays by name; the format is recognised by content, never by name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from modeldiff_jax.errors import InvalidModelError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.files import head_of, open_model
from modeldiff_jax.models.weights.safetensors import is_safetensors, read_safetensors
from modeldiff_jax.models.weights.torch_file import is_torch, read_torch

_FORMATS = ((is_safetensors, read_safetensors), (is_torch, read_torch))


def load_weights(path: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> dict[str, np.ndarray]:
    """Reads a `.safetensors` file or a PyTorch `.pth` / `.pt` state dict, without running any code in it.

    Args:
      path: the file. PyTorch files may have either format, the zip archive or the older stream.
      limits: limits on hostile input.
    Returns:
      Read-only arrays by name, in the file's order, of any shape. Names of nested dictionaries are joined by dots;
      entries that are not tensors (an epoch, for example) are left out.
    Raises:
      InvalidModelError: no such file, damaged, another format, or changed while it was read.
      UnsafeModelError: it names code, which a state dict never does.
      UnsupportedModelError: a kind of tensor that is not supported.
      LimitExceededError: a limit was exceeded.
    """
    file = Path(path)
    with open_model(file, limits, "external_bytes") as stream:
        head = head_of(stream)
        for recognises, read in _FORMATS:
            if recognises(head):
                return read(stream, limits, str(file))
    raise InvalidModelError(
        "A weight file is a .safetensors file or a PyTorch state dict",
        got="neither",
        where=str(file),
        fix="check the path; an ONNX model is opened by `load`",
    )
