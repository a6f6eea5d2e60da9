"""Writes files atomically: a file is whole or as it was before, even if the process ends or the disk is full."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from modeldiff_jax.errors import InvalidInputError

_unfinished: set[Path] = set()


def check_writable(path: str, inputs: Iterable[str] = ()) -> None:
    """Raises, before minutes of work, for a result file that could not be written or would replace an input."""
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
    """Returns whether an input file or folder is, or directly holds, the file."""
    return os.path.exists(place) and any(os.path.samefile(place, path) for path in (file, file.resolve().parent))


def write(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file as UTF-8, as `writing` does."""
    with writing(path) as stream:
        stream.write(text.encode("utf-8"))


@contextmanager
def writing(path: str | os.PathLike[str], noun: str = "A result") -> Iterator[BinaryIO]:
    """Opens a file that takes the place of `path` once the block is left without an error; until then nothing changes.

    The bytes go into a hidden file of the same folder, reach the disk, and are then renamed. An existing file keeps its
    permissions, a link still points where it did, and a device or a pipe is written to directly.

    Args:
      path: file to make or replace; its folder must exist.
      noun: name of the content, with its article, for messages: `A probe set`.
    Raises:
      InvalidInputError: the file cannot be written: no such folder, no permission, no space.
    """
    try:
        target = Path(path).resolve()
        if target.exists() and not target.is_file():
            with target.open("wb") as stream:
                yield stream
        else:
            yield from _replacing(target)
    except OSError as error:
        raise InvalidInputError(
            f"{noun} can be written",
            got=error.strerror or str(error),
            where=os.fspath(path),
            fix="choose another place, or make room there",
        ) from error


def discard_unfinished() -> None:
    """Removes the files of unfinished writes, for a process that is about to end without leaving their blocks."""
    for temporary in tuple(_unfinished):
        with suppress(OSError):
            temporary.unlink()


def _replacing(target: Path) -> Iterator[BinaryIO]:
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")
    # the system applies the umask to a new file's mode; reading the umask would change it for all threads
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    _unfinished.add(temporary)
    try:
        with os.fdopen(handle, "wb") as stream:
            if target.exists():
                os.chmod(temporary, target.stat().st_mode & 0o777)
            yield stream
            stream.flush()
            os.fsync(handle)
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    finally:
        _unfinished.discard(temporary)
