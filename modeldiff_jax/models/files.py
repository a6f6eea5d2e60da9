"""Files of strangers, opened once, so that what is checked is what is read; and how they get to a device."""

from __future__ import annotations

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


def to_device(array: Shaped[Any, "*shape"]) -> Shaped[jax.Array, "*shape"]:
    """An array on the default device; nobody may write to it after. What was read of a mapped file meanwhile is let go
    of: it need not stay twice."""
    mapping: Any = array
    while getattr(mapping, "base", None) is not None:
        mapping = mapping.base
    if isinstance(mapping, memoryview):  # numpy's way of holding a buffer
        mapping = mapping.obj
    # On CPU `device_put` may share memory, which a file that others can cut short must not be; `asarray` copies, by a
    # program compiled for each shape.
    moved = jnp.asarray(array) if isinstance(mapping, mmap.mmap) else jax.device_put(array)
    if isinstance(mapping, mmap.mmap) and array.nbytes and hasattr(mmap, "MADV_DONTNEED"):
        moved.block_until_ready()
        first, end = np.lib.array_utils.byte_bounds(array)
        start, _ = np.lib.array_utils.byte_bounds(np.frombuffer(mapping, np.uint8))
        begin = (first - start) // mmap.PAGESIZE * mmap.PAGESIZE
        mapping.madvise(mmap.MADV_DONTNEED, begin, end - start - begin)
    return moved


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
