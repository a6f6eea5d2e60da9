"""Loads a model file into a `Model`; the format is recognised by content, never by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

import scipy.special  # noqa: F401  # adds to the process's warning filters, which must not change during a comparison

from modeldiff_jax.errors import InvalidInputError, InvalidModelError, UnsupportedModelError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.convert import to_model
from modeldiff_jax.models.files import head_of, open_model, size_of
from modeldiff_jax.models.formats import HEAD, recognise
from modeldiff_jax.models.model import Model, Origin

ModelLike: TypeAlias = Model | str | os.PathLike[str]


def load(path: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> Model:
    """Reads a model file into a `Model`.

    The file and its external data are read once. A file that another process cuts or rewrites meanwhile is refused, and
    the hashes in `model.origin` are of the bytes that run.

    Args:
      path: an ONNX file. External data must lie in the same folder or below it.
      limits: limits on hostile input.
    Returns:
      The model; `model.params` are on the default device.
    Raises:
      InvalidModelError: no such file, not a whole model, or changed while it was read.
      UnsafeModelError: the model reaches outside its folder.
      UnsupportedModelError: another format, or an operator that is not implemented.
      LimitExceededError: a limit was exceeded.
    """
    file = Path(path)
    where = str(file)
    with open_model(file, limits, "external_bytes") as stream:
        size = size_of(stream)
        known = recognise(head_of(stream, HEAD), size)
        if known is not None and known.read_graph is None:
            raise UnsupportedModelError("A model file must be ONNX", got=known.name, where=where, fix=known.advice)
        limits.check("model_bytes", size, where=where)
        if known is None or known.read_graph is None:
            raise InvalidModelError(
                "A model file must be a whole file of a known format",
                got="bytes of no known format",
                where=where,
                fix="check that the file is ONNX and was copied whole",
            )
        read = known.read_graph(stream, file.absolute().parent, limits, where)
    origin = Origin(where, known.name, read.sha256, read.content_sha256)
    return to_model(read.graph, origin, limits, release=True)


def as_model(source: ModelLike, limits: Limits = DEFAULT) -> Model:
    """Returns a model unchanged, or reads it from its file."""
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
