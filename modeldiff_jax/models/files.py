"""Reads the bytes of model files once into memory of this process, hashes them meanwhile, and moves them to a device.

Files are not mapped: another process may cut or rewrite a mapped file at any time, which kills the reader or changes
weights after they were hashed. Large tensors are read directly into memory of the alignment that XLA wants, so on CPU
they are not copied again.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BufferedIOBase
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Shaped, UInt8

from modeldiff_jax.errors import InvalidModelError, LimitExceededError, ModelDiffError
from modeldiff_jax.limits import Limits
from modeldiff_jax.runtime.fork import check_process
from modeldiff_jax.runtime.regular_file import changed, open_regular

Bytes: TypeAlias = UInt8[np.ndarray, " size"]

HEAD_BYTES = 64
"""Bytes from the start of a file that suffice to recognise its format."""
_ALIGNMENT = 64  # bytes; XLA's CPU client uses such memory in place and copies all other
_BUFFER = 2**20
_MAPPED = 2**20  # bytes; larger arrays get their memory from the system directly


@contextmanager
def open_model(file: Path, limits: Limits, bound: str) -> Iterator[BufferedIOBase]:
    """Opens a file of a model or of weights, which must be regular, not empty, and unchanged until the block ends.

    Raises:
      InvalidModelError: no such file, not a regular one, unreadable, empty, or changed meanwhile.
      LimitExceededError: longer than the limit named `bound`.
    """
    with open_regular(file, "A model", InvalidModelError) as stream:
        size = size_of(stream)
        limits.check(bound, size, where=str(file))
        check_memory(size, str(file))
        if not size:
            raise InvalidModelError(
                "A model file must hold a model", got="an empty file", where=str(file), fix="check the path"
            )
        yield stream


def read_file(file: Path, limits: Limits, bound: str) -> bytes:
    """Returns the bytes of a regular file. Raises as `open_model` does."""
    with open_model(file, limits, bound) as stream:
        return stream.read()


def size_of(stream: BufferedIOBase) -> int:
    """Returns the length of a seekable stream in bytes; its position stays."""
    position = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(position)
    return size


def head_of(stream: BufferedIOBase, size: int = HEAD_BYTES) -> bytes:
    """Returns the first bytes of a seekable stream, and leaves it at its start."""
    stream.seek(0)
    head = stream.read(size)
    stream.seek(0)
    return head


def aligned(size: int) -> Bytes:
    """Returns new memory of `size` bytes, not yet written, that a CPU device can use in place.

    Raises:
      LimitExceededError: the system gives no more memory.
    """
    try:
        if size >= _MAPPED and hasattr(mmap, "MAP_ANONYMOUS"):
            # NumPy asks for huge pages, for which Linux may first have to move other memory: on a machine whose memory
            # is in use, that took five times as long as reading the file
            return np.frombuffer(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
        memory = np.empty(size + _ALIGNMENT, np.uint8)
    except (MemoryError, OSError) as error:
        raise _no_memory(size) from error
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size]


def check_memory(size: int, where: str) -> None:
    """Raises `LimitExceededError` for more bytes than this machine's memory has, as a sparse file may declare.

    Args:
      size: bytes about to be read and kept.
      where: the file, for the message.
    """
    if size > _physical_memory():
        raise _no_memory(size, where)


@cache
def _physical_memory() -> float:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # the system does not say
        return float("inf")


def _no_memory(size: int, where: str = "") -> LimitExceededError:
    return LimitExceededError(
        "A model fits into memory", got=f"{size:,} bytes", where=where, fix="use a machine with more memory"
    )


def read_exactly(
    stream: BufferedIOBase,
    size: int,
    where: str,
    noun: str = "A model",
    error: type[ModelDiffError] = InvalidModelError,
) -> Bytes:
    """Reads `size` bytes into a read-only array whose memory is aligned as `aligned` does it.

    Args:
      stream: at the position to read from.
      size: bytes to read.
      where, noun, error: for the error raised if the stream ends early, as that of a truncated file does.
    """
    array, filled = aligned(size), 0
    while filled < size:
        count = stream.readinto(array[filled:].data)
        if not count:
            raise changed(noun, f"its end after {filled:,} of {size:,} bytes", where, error)
        filled += count
    array.flags.writeable = False
    return array


def read_range(stream: BufferedIOBase, start: int, size: int, where: str) -> Bytes:
    """Reads `size` bytes of a model's file from position `start`, as `read_exactly` does."""
    stream.seek(start)
    return read_exactly(stream, size, where)


class HashedStream(io.BufferedReader):
    """A file read from start to end, with the SHA-256 of the bytes that were read.

    Each byte is read from the file once, so the hash is of the bytes the caller got, whatever happens to the file.
    """

    def __init__(self, stream: BufferedIOBase) -> None:
        self._source = _HashedSource(stream)
        super().__init__(self._source, _BUFFER)

    def sha256(self) -> str:
        """Reads the rest of the file, and returns the hash of the whole file in hexadecimal digits."""
        while self.read(_BUFFER):
            pass
        return self._source.digest.hexdigest()


class _HashedSource(io.RawIOBase):
    """The unbuffered stream behind `HashedStream`; seeking to the start resets the hash."""

    def __init__(self, stream: BufferedIOBase) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if offset or whence != os.SEEK_SET:
            raise io.UnsupportedOperation("a hashed stream is read from its start")
        self.digest = hashlib.sha256()
        return self._stream.seek(0)

    def readinto(self, buffer: Any) -> int:
        count = self._stream.readinto(buffer)
        self.digest.update(memoryview(buffer)[:count])
        return count


def sha256(data: Bytes) -> str:
    """Returns the SHA-256 of bytes in memory in hexadecimal digits."""
    return hashlib.sha256(data.data).hexdigest()


def to_device(array: Shaped[Any, "*shape"]) -> Shaped[jax.Array, "*shape"]:
    """Returns an array on the default device. On CPU it may share the memory, which must not be written to later."""
    check_process()
    with jax.enable_x64(True):  # so that 64-bit types are kept
        return jax.device_put(array)
