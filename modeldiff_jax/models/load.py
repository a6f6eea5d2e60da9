"""A file -> `Model`, by its content and never by its name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from modeldiff_jax.errors import InvalidInputError, InvalidModelError, UnsupportedModelError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.convert import to_model
from modeldiff_jax.models.files import map_file, sha256
from modeldiff_jax.models.formats import HEAD, recognise
from modeldiff_jax.models.model import Model, Origin

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
    known = recognise(mapped[:HEAD].tobytes(), mapped.size)
    if known is not None and known.read_graph is None:
        raise UnsupportedModelError("A model file must be ONNX", got=known.name, where=str(file), fix=known.advice)
    limits.check("model_bytes", len(mapped), where=str(file))
    if known is None or known.read_graph is None:
        raise InvalidModelError(
            "A model file must be a whole file of a known format",
            got="bytes of no known format",
            where=str(file),
            fix="check that the file is ONNX and was copied whole",
        )
    digest = sha256(mapped)
    graph = known.read_graph(mapped, file.absolute().parent, limits, str(file))
    return to_model(graph, Origin(str(file), known.name, digest), limits)


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
