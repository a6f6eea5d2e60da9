"""Text into a file that is either whole or untouched."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from modeldiff_jax.errors import InvalidInputError


def check_writable(path: str, inputs: Iterable[str] = ()) -> None:
    """Refuses, before minutes of work, a result file that could not be written or would replace an input."""
    file = Path(path)
    folder = file.resolve().parent
    if file.is_dir():
        raise InvalidInputError("A result goes into a file", got="a folder", where=path, fix="name a file in it")
    if not folder.is_dir():
        raise InvalidInputError("A result's folder exists", got="no such folder", where=str(folder), fix="make it")
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise InvalidInputError("A result can be written", got="no permission", where=path, fix="choose another file")
    if file.exists() and any(_holds(other, file) for other in inputs):
        raise InvalidInputError("A result replaces no input", got="an input", where=path, fix="choose another file")


def _holds(place: str, file: Path) -> bool:
    """Whether an input file or folder is, or directly holds, the file."""
    return os.path.exists(place) and any(os.path.samefile(place, own) for own in (file, file.resolve().parent))


def write(path: str, text: str) -> None:
    """Writes the whole text or nothing; a device or a pipe is written to as it is."""
    file = Path(path).resolve()
    try:
        if file.exists() and not file.is_file():
            file.write_text(text, "utf-8")
            return
        mode = file.stat().st_mode & 0o777 if file.exists() else 0o666 & ~_umask()
        handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            os.chmod(name, mode)
            os.replace(name, file)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise InvalidInputError("A result can be written", got=error.strerror or str(error), where=path) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
