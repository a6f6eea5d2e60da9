"""A file -> `Model`, by its content and never by its name."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from modeldiff_jax.errors import InvalidModelError, UnsupportedModelError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.graph.program import to_model
from modeldiff_jax.models.model import Model, Origin

# First bytes of what people pass by mistake, and what to tell them. ONNX itself has no magic number.
_FOREIGN = (
    (0, b"PK\x03\x04", "a zip archive (PyTorch, Keras or an app package)", "export the model to ONNX"),
    (0, b"\x80\x02", "a pickle, which could run code", "export the model to ONNX"),
    (0, b"\x80\x03", "a pickle, which could run code", "export the model to ONNX"),
    (0, b"\x80\x04", "a pickle, which could run code", "export the model to ONNX"),
    (0, b"\x80\x05", "a pickle, which could run code", "export the model to ONNX"),
    (0, b"\x89HDF\r\n", "an HDF5 file", "export the model to ONNX"),
    (4, b"TFL3", "a TFLite model", "convert it to ONNX"),
    (0, b"GGUF", "a GGUF model", "convert it to ONNX"),
    (0, b"version https://git-lfs", "a Git LFS pointer instead of the file", "fetch the file: git lfs pull"),
)


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
    data = read_bytes(file, limits)
    for offset, magic, what, fix in _FOREIGN:
        if data[offset : offset + len(magic)] == magic:
            raise UnsupportedModelError("A model file must be ONNX", got=what, where=str(file), fix=fix)
    from modeldiff_jax.models.onnx import read_graph  # onnx takes 0.4 s to import

    graph = read_graph(data, folder=file.absolute().parent, limits=limits, where=str(file))
    return to_model(graph, Origin(str(file), "onnx", hashlib.sha256(data).hexdigest()), limits)


def read_bytes(file: Path, limits: Limits) -> bytes:
    """The bytes of a regular file, opened once so that what is checked is what is read.

    Raises:
      InvalidModelError: no such file, not a regular one, unreadable or empty.
      LimitExceededError: longer than `model_bytes`.
    """
    try:
        # O_NONBLOCK: a named pipe must not make us wait
        with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                got = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
                raise InvalidModelError("A model is a file", got=got, where=str(file), fix="check the path")
            limits.check("model_bytes", status.st_size, where=str(file))
            data = stream.read(status.st_size)
    except FileNotFoundError as error:
        raise InvalidModelError(
            "A model is a file", got="no such file", where=str(file), fix="check the path"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        got = getattr(error, "strerror", None) or str(error)
        raise InvalidModelError("A model file must be readable", got=got, where=repr(str(file)[:200])) from error
    if not data:
        raise InvalidModelError(
            "A model file must hold a model", got="an empty file", where=str(file), fix="check the path"
        )
    return data
