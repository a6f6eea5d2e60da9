"""Entries of a zip archive as views of it. Only entries that are not compressed, so there is nothing to blow up."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
from jaxtyping import UInt8

from modeldiff_jax.errors import InvalidModelError, LimitExceededError, UnsupportedModelError
from modeldiff_jax.limits import Limits

_LOCAL = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field


def stored_entries(data: UInt8[np.ndarray, " size"], limits: Limits, where: str) -> dict[str, UInt8[np.ndarray, " n"]]:
    """Every entry's bytes by its name.

    Args:
      data: the archive.
      limits: `header_bytes` bounds the directory.
      where: the file, for messages.
    Raises:
      InvalidModelError: damaged, or one name twice.
      UnsupportedModelError: a compressed entry.
      LimitExceededError: the directory is too long.
    """
    try:
        with zipfile.ZipFile(_Window(data, limits, where)) as archive:
            entries = archive.infolist()
    except LimitExceededError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError, struct.error) as error:
        raise InvalidModelError("An archive is a whole zip file", got=str(error)[:200], where=where) from error
    found: dict[str, UInt8[np.ndarray, " n"]] = {}
    for entry in entries:
        if entry.filename.endswith("/"):  # a folder; `is_dir` cannot bear an empty name
            continue
        if entry.compress_type != zipfile.ZIP_STORED:
            raise UnsupportedModelError(
                "A weight archive's entries are stored as they are",
                got=f"`{entry.filename}`, compressed",
                where=where,
                fix="a TorchScript program, a Keras model or an app package is no weight file: export to ONNX",
            )
        if entry.header_offset < 0:  # zipfile makes up for what seems to stand before an archive
            raise InvalidModelError("An archive's entries lie within it", got="a negative offset", where=where)
        head = data[entry.header_offset : entry.header_offset + _LOCAL.size].tobytes()
        signature, *lengths = _LOCAL.unpack(head) if len(head) == _LOCAL.size else (b"", 0)
        begin = entry.header_offset + _LOCAL.size + sum(lengths)
        if signature != b"PK\x03\x04" or begin + entry.file_size > len(data) or entry.filename in found:
            raise InvalidModelError(
                "An archive's entries lie within it, each name once", got=f"`{entry.filename}`", where=where
            )
        found[entry.filename] = data[begin : begin + entry.file_size]
    return found


class _Window(io.RawIOBase):
    """The archive as a file of which nobody reads much: `zipfile` takes a directory of any length as it comes."""

    def __init__(self, data: UInt8[np.ndarray, " size"], limits: Limits, where: str) -> None:
        self._data, self._limits, self._where, self._at = data, limits, where, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        if at < 0:
            raise OSError("a position before the start")
        self._at = at
        return at

    def read(self, size: int | None = -1) -> bytes:
        end = len(self._data) if size is None or size < 0 else min(self._at + size, len(self._data))
        self._limits.check("header_bytes", max(0, end - self._at), where=f"{self._where}, directory")
        part = self._data[self._at : end].tobytes()
        self._at += len(part)
        return part
