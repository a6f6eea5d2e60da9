"""Traces of programs, as xprof and Perfetto read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from modeldiff_jax.errors import InvalidInputError, ModelDiffError

_RUNS = 3


def check_folder(folder: str | Path) -> Path:
    """Returns the folder, and makes it if it does not exist.

    Raises:
      InvalidInputError: it cannot be made.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(
            "A trace goes into a folder", got=error.strerror or str(error), where=str(folder), fix="name another one"
        ) from error
    return path


def write_trace(folder: Path, runs: list[tuple[str, Callable[[], Any]]]) -> dict[str, Any]:
    """Traces a few runs of each program, marked with its name.

    Args:
      folder: an existing folder. A new folder is made in `plugins/profile/` in it.
      runs: name of each program, and a function that returns when its work is done.
    Returns:
      `folder`, and `files` relative to it: `.xplane.pb` for xprof, `.trace.json.gz` for Perfetto.
    Raises:
      ModelDiffError: another trace is being made.
    """
    before = set(folder.rglob("*"))
    try:
        with jax.profiler.trace(str(folder)):
            for name, run in runs:
                for step in range(_RUNS):
                    with jax.profiler.StepTraceAnnotation(name, step_num=step):
                        run()
    except RuntimeError as error:
        raise ModelDiffError(
            "One trace is made at a time", got=str(error), where=str(folder), fix="end the other one first"
        ) from error
    files = sorted(path for path in set(folder.rglob("*")) - before if path.is_file())
    return {"folder": str(folder), "files": [path.relative_to(folder).as_posix() for path in files]}
