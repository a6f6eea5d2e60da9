"""A file -> `Model`, by its content and never by its name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from modeldiff_jax.errors import InvalidInputError, UnsupportedModelError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.convert import to_model
from modeldiff_jax.models.files import map_file, sha256
from modeldiff_jax.models.model import Model, Origin
from modeldiff_jax.models.weights.safetensors import is_safetensors

# First bytes of what people pass by mistake, and what to tell them. ONNX itself has no magic number.
_TO_ONNX = "export the model to ONNX"
_WITH_MODULE = "weights need a module: md.from_flax(module, md.load_weights(path), input_spec); or export to ONNX"
_FOREIGN = (
    (0, b"PK\x03\x04", "a zip archive (PyTorch, Keras or an app package)", _WITH_MODULE),
    *((0, bytes([0x80, protocol]), "a pickle, which could run code", _WITH_MODULE) for protocol in (2, 3, 4, 5)),
    (0, b"\x89HDF\r\n", "an HDF5 file", _TO_ONNX),
    (4, b"TFL3", "a TFLite model", "convert it to ONNX"),
    (0, b"GGUF", "a GGUF model", "convert it to ONNX"),
    (0, b"version https://git-lfs", "a Git LFS pointer instead of the file", "fetch the file: git lfs pull"),
)


ModelLike: TypeAlias = Model | str | os.PathLike[str]


def load(path: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> Model:
    """Reads a model file into a `Model`.

    Args:
      path: an ONNX file. External data must lie in the same folder or below it.
      limits: bounds on hostile input.
    Returns:
      The model; `model.params` are on the default device.
    Raises:
      InvalidModelError: no such file, or not a whole model.
      UnsafeModelError: the model reaches outside its folder.
      UnsupportedModelError: another format, or an operator we do not have.
      LimitExceededError: a bound was hit.
    """
    file = Path(path)
    mapped = map_file(file, limits, "external_bytes")
    if is_safetensors(mapped):
        raise UnsupportedModelError(
            "A model file must be ONNX", got="safetensors: weights alone", where=str(file), fix=_WITH_MODULE
        )
    for offset, magic, what, fix in _FOREIGN:
        if mapped[offset : offset + len(magic)].tobytes() == magic:
            raise UnsupportedModelError("A model file must be ONNX", got=what, where=str(file), fix=fix)
    limits.check("model_bytes", len(mapped), where=str(file))
    digest = sha256(mapped)
    from modeldiff_jax.models.onnx import read_graph  # onnx takes 0.4 s to import

    graph = read_graph(mapped, folder=file.absolute().parent, limits=limits, where=str(file))
    return to_model(graph, Origin(str(file), "onnx", digest), limits)


def as_model(source: ModelLike, limits: Limits = DEFAULT) -> Model:
    """A model as it is, or read from its file."""
    if isinstance(source, Model):
        return source
    if isinstance(source, (str, os.PathLike)):
        return load(source, limits=limits)
    raise InvalidInputError(
        "A model is a `Model` or a path",
        got=type(source).__name__,
        where="as_model",
        fix="wrap it with md.from_flax or md.from_callable",
    )
