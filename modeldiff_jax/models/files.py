"""Files of strangers, opened once, so that what is checked is what is read; and how they get to a device."""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped, UInt8

from modeldiff_jax.errors import InvalidModelError
from modeldiff_jax.limits import Limits

_PART = 2**24


def read_file(file: Path, limits: Limits, bound: str) -> bytes:
    """The bytes of a regular file.

    Raises:
      InvalidModelError: no such file, not a regular one, unreadable or empty.
      LimitExceededError: longer than the limit named `bound`.
    """
    with _opened(file, limits, bound) as (stream, size):
        data = stream.read(size)
    if not data:  # emptied meanwhile
        raise _empty(file)
    return data


def map_file(file: Path, limits: Limits, bound: str) -> UInt8[np.ndarray, " size"]:
    """The bytes of a regular file as a read-only view of it. Raises as `read_file` does."""
    with _opened(file, limits, bound) as (stream, _):
        return np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def sha256(mapped: UInt8[np.ndarray, " size"]) -> str:
    """The hash of a mapped file, of which no more than a part is in memory at a time."""
    digest = hashlib.sha256()
    for start in range(0, mapped.size, _PART):
        part = mapped[start : start + _PART]
        digest.update(part.data)
        _let_go(part)
    return digest.hexdigest()


def to_device(array: Shaped[Any, "*shape"]) -> Shaped[jax.Array, "*shape"]:
    """An array on the default device; nobody may write to it after. What was read of a mapped file meanwhile is let go
    of: it need not stay twice."""
    # On CPU `device_put` may share memory, which a file that others can cut short must not be; `asarray` copies, by a
    # program compiled for each shape.
    with jax.enable_x64(True):  # nothing is computed, and nothing narrowed
        if _mapping(array) is None:
            return jax.device_put(array)
        moved = jnp.asarray(array)
    moved.block_until_ready()
    _let_go(array)
    return moved


def _mapping(array: Any) -> mmap.mmap | None:
    """The mapped file an array is a view of."""
    while getattr(array, "base", None) is not None:
        array = array.base
    if isinstance(array, memoryview):  # numpy's way of holding a buffer
        array = array.obj
    return array if isinstance(array, mmap.mmap) else None


def _let_go(array: np.ndarray) -> None:
    """Takes what a view of a mapped file holds, and what of it was read before, out of memory; the file keeps it."""
    mapping = _mapping(array)
    if mapping is not None and array.nbytes and hasattr(mmap, "MADV_DONTNEED"):
        first, end = np.lib.array_utils.byte_bounds(array)
        start, _ = np.lib.array_utils.byte_bounds(np.frombuffer(mapping, np.uint8))
        begin = (first - start) // mmap.PAGESIZE * mmap.PAGESIZE
        mapping.madvise(mmap.MADV_DONTNEED, begin, end - start - begin)


@contextmanager
def _opened(file: Path, limits: Limits, bound: str) -> Iterator[tuple[BinaryIO, int]]:
    try:
        # O_NONBLOCK: a named pipe must not make us wait
        with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                got = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
                raise InvalidModelError("A model is a file", got=got, where=str(file), fix="check the path")
            limits.check(bound, status.st_size, where=str(file))
            if not status.st_size:
                raise _empty(file)
            yield stream, status.st_size
    except FileNotFoundError as error:
        raise InvalidModelError(
            "A model is a file", got="no such file", where=str(file), fix="check the path"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        got = getattr(error, "strerror", None) or str(error)
        raise InvalidModelError("A model file must be readable", got=got, where=repr(str(file)[:200])) from error


def _empty(file: Path) -> InvalidModelError:
    return InvalidModelError(
        "A model file must hold a model", got="an empty file", where=str(file), fix="check the path"
    )
