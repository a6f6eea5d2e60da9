"""Opens files named by a user or by a folder: regular files only, and none that changes while it is read.

A named pipe would make us wait for a writer, a device may have no end, and a file that is cut short or rewritten while
it is read gives a mixture of two files. Files are read into memory, never mapped: a mapped file that another process
cuts short kills the reader by SIGBUS.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader

from modeldiff_jax.errors import InvalidInputError, ModelDiffError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)


@contextmanager
def open_regular(
    path: str | os.PathLike[str], noun: str = "An input", error: type[ModelDiffError] = InvalidInputError
) -> Iterator[BufferedReader]:
    """Opens a regular file for reading; links are followed.

    Args:
      path: the file.
      noun: name of the content, with its article, for messages: `A model`.
      error: class of the errors raised.
    Raises:
      error: no such file, not a regular file, not readable, or changed before the block was left.
    """
    where = os.fspath(path)
    try:
        check_regular(os.stat(path), noun, where, error)  # before opening, which may act on a device
        # O_NONBLOCK: should the file have become a pipe meanwhile, opening it does not wait
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        opened = os.fdopen(os.open(path, flags), "rb")
    except FileNotFoundError as missing:
        raise error(f"{noun} is a file", got="no such file", where=where, fix="check the path") from missing
    except ModelDiffError:
        raise
    except (OSError, ValueError) as failure:  # ValueError: a null character in the path
        raise _unreadable(noun, failure, where, error) from failure
    with opened as stream:
        check_regular(os.fstat(stream.fileno()), noun, where, error)
        with unchanged(stream.fileno(), noun, where, error):
            yield stream


@contextmanager
def unchanged(handle: int, noun: str, where: str, error: type[ModelDiffError]) -> Iterator[None]:
    """Raises `error` when reading fails, or when the open file's size or modification time differs after the block."""
    before = os.fstat(handle)
    failure: Exception | None = None
    try:
        yield
    except OSError as unreadable:
        failure = _unreadable(noun, unreadable, where, error)
        failure.__cause__ = unreadable
    except Exception as other:  # often because the file changed, which is then the clearer message
        failure = other
    after = os.fstat(handle)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        got = f"{before.st_size:,} bytes when opened, {after.st_size:,} bytes after reading"
        raise changed(noun, got, where, error) from failure
    if failure is not None:
        raise failure


def changed(noun: str, got: str, where: str, error: type[ModelDiffError]) -> ModelDiffError:
    """Returns the error for a file that changed while it was read."""
    return error(
        f"{noun} must not change while it is read",
        got=got,
        where=where,
        fix="wait until whatever writes the file has finished, then try again",
    )


def kind_of(status: os.stat_result) -> str:
    """Returns the kind of file a status describes, with its article; empty for a regular file."""
    if stat.S_ISREG(status.st_mode):
        return ""
    return next((name for holds, name in _KINDS if holds(status.st_mode)), "no regular file")


def check_regular(status: os.stat_result, noun: str, where: str, error: type[ModelDiffError]) -> None:
    """Raises `error`, which names the kind of file, unless a status is that of a regular file."""
    kind = kind_of(status)
    if kind:
        fix = "check the path" if kind == "a folder" else "copy its content into a regular file first"
        raise error(f"{noun} is a regular file", got=kind, where=where, fix=fix)


def _unreadable(noun: str, failure: Exception, where: str, error: type[ModelDiffError]) -> ModelDiffError:
    got = getattr(failure, "strerror", None) or str(failure)
    return error(f"{noun} is a readable file", got=got, where=where, fix="check the path and its permissions")
