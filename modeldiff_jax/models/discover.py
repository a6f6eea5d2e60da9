"""Finds models among files and folders, by content and never by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.files import head_of, size_of
from modeldiff_jax.models.formats import HEAD, recognise
from modeldiff_jax.models.load import ModelLike
from modeldiff_jax.models.model import Model
from modeldiff_jax.runtime.regular_file import open_regular

ModelSources: TypeAlias = ModelLike | Sequence[ModelLike] | None
"""Models, model files, and folders of model files."""


def model_sources(sources: ModelSources, limits: Limits = DEFAULT) -> tuple[list[ModelLike], list[str]]:
    """Returns models and files unchanged, each folder as the model files in it, and notes on files that were left out.

    Args:
      sources: one or several.
      limits: `listed_files` bounds how many files a folder may hold.
    Raises:
      InvalidInputError: a path that does not exist, or a folder without any model file.
    """
    if sources is None:
        return [], []
    listed = [sources] if isinstance(sources, (Model, str, os.PathLike)) else list(sources)
    models: list[ModelLike] = []
    notes = []
    for source in listed:
        if not isinstance(source, (str, os.PathLike)):
            models.append(source)
        elif not os.path.exists(source):  # refused before minutes of work, not after
            raise InvalidInputError(
                "A model's file or folder exists", got="no such path", where=str(source), fix="check the path"
            )
        elif os.path.isdir(source):
            files, others = model_files(Path(source), limits)
            models += files
            if others:
                notes.append(f"Files in {source} that are no models and were left out: {others}.")
        else:
            models.append(source)
    return models, notes


def model_files(folder: Path, limits: Limits = DEFAULT) -> tuple[list[Path], int]:
    """Returns the model files below a folder, in order of their paths, and the number of other files.

    Hidden files and folders, links to folders, and files that are not regular are passed over.

    Raises:
      InvalidInputError: there is no model file.
      LimitExceededError: there are more files than `limits.listed_files`.
    """
    models, others = [], 0
    for i, path in enumerate(_files(folder)):
        limits.check("listed_files", i + 1, where=str(folder))
        if _is_model(path):
            models.append(path)
        else:
            others += 1
    if not models:
        raise InvalidInputError(
            "A folder of models holds a model file",
            got=f"{others} other files" if others else "no files",
            where=str(folder),
            fix="name the files, or another folder",
        )
    return models, others


def _files(folder: Path) -> Iterator[Path]:
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(base, name)
            if not name.startswith(".") and path.is_file():
                yield path


def _is_model(path: Path) -> bool:
    try:
        with open_regular(path) as stream:
            known = recognise(head_of(stream, HEAD), size_of(stream))
    except InvalidInputError:
        return False
    return known is not None and known.read_graph is not None
