"""Loads a model file into a `Model`; the format is recognised by content, never by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

from modeldiff_jax.errors import InvalidInputError, UnsupportedModelError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.convert import to_model
from modeldiff_jax.models.files import head_of, open_model, size_of
from modeldiff_jax.models.model import Model, Origin
from modeldiff_jax.models.weights.pickled import is_pickle
from modeldiff_jax.models.weights.safetensors import is_safetensors
from modeldiff_jax.models.zip_archive import is_zip


class _OtherFormat(NamedTuple):
    """A format that people pass by mistake, and what to tell them. ONNX itself has no magic number."""

    recognises: Callable[[bytes], bool]
    name: str
    fix: str


def _begins(magic: bytes, offset: int = 0) -> Callable[[bytes], bool]:
    return lambda head: head[offset : offset + len(magic)] == magic


_TO_ONNX = "export the model to ONNX"
_WITH_MODULE = "weights need a module: md.from_flax(module, md.load_weights(path), input_spec); or export to ONNX"
_OTHER_FORMATS = (
    _OtherFormat(is_safetensors, "safetensors: weights alone", _WITH_MODULE),
    _OtherFormat(is_zip, "a zip archive (PyTorch, Keras or an app package)", _WITH_MODULE),
    _OtherFormat(is_pickle, "a pickle, which could run code", _WITH_MODULE),
    _OtherFormat(_begins(b"\x89HDF\r\n"), "an HDF5 file", _TO_ONNX),
    _OtherFormat(_begins(b"TFL3", offset=4), "a TFLite model", "convert it to ONNX"),
    _OtherFormat(_begins(b"GGUF"), "a GGUF model", "convert it to ONNX"),
    _OtherFormat(
        _begins(b"version https://git-lfs"), "a Git LFS pointer instead of the file", "fetch the file: git lfs pull"
    ),
)

ModelLike: TypeAlias = Model | str | os.PathLike[str]


def load(path: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> Model:
    """Reads a model file into a `Model`.

    The file and its external data are read once. A file that another process cuts or rewrites meanwhile is refused, and
    the hashes in `model.origin` are of the bytes that run.

    Args:
      path: an ONNX file. External data must lie in the same folder or below it.
      limits: bounds on hostile input.
    Returns:
      The model; `model.params` are on the default device.
    Raises:
      InvalidModelError: no such file, not a whole model, or changed while it was read.
      UnsafeModelError: the model reaches outside its folder.
      UnsupportedModelError: another format, or an operator we do not have.
      LimitExceededError: a bound was hit.
    """
    file = Path(path)
    where = str(file)
    with open_model(file, limits, "external_bytes") as stream:
        head = head_of(stream)
        for other in _OTHER_FORMATS:
            if other.recognises(head):
                raise UnsupportedModelError("A model file must be ONNX", got=other.name, where=where, fix=other.fix)
        limits.check("model_bytes", size_of(stream), where=where)
        from modeldiff_jax.models.onnx import read_graph_file  # onnx takes 0.4 s to import

        graph, *hashes = read_graph_file(stream, folder=file.absolute().parent, limits=limits, where=where)
    return to_model(graph, Origin(where, "onnx", *hashes), limits, release=True)


def as_model(source: ModelLike, limits: Limits = DEFAULT) -> Model:
    """Returns a model as it is, or reads it from its file."""
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
