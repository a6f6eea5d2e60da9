"""Opens a tensor's external data without letting the model choose which files are read.

A model names its data files, so the names are hostile: published attacks use `..`, absolute paths, symbolic links in
any component, and hard links to files elsewhere (CVE-2022-25882, CVE-2024-27318, CVE-2026-27489, CVE-2026-34446). Each
component is opened relative to the one before it and never through a link, so no check can be raced, and a regular
file with a second name is refused.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from contextlib import ExitStack
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple

from modeldiff_jax.errors import InvalidModelError, UnsafeModelError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.files import Bytes, check_memory, read_range, sha256, size_of
from modeldiff_jax.runtime.regular_file import kind_of, unchanged
from modeldiff_jax.runtime.threads import each

_KEYS = frozenset({"location", "offset", "length", "checksum", "basepath"})
# The path contains a link or a file as a folder, or too long a name; EMLINK: a link, on BSD
_NO_PLAIN_PATH = (errno.ELOOP, errno.ENOTDIR, errno.EMLINK, errno.ENAMETOOLONG)


class _Range(NamedTuple):
    """A part of a data file, in bytes."""

    location: str
    offset: int
    length: int


class ExternalData:
    """The data files below a model's folder, each opened once until the block ends.

    Args:
      folder: the model's folder; `None` for a model given as bytes, which must not have external data.
      limits: `external_bytes` limits the bytes of all tensors together.
    """

    def __init__(self, folder: Path | None, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._files: dict[str, BufferedIOBase] = {}
        self._ranges: dict[_Range, Bytes] = {}
        self._total = 0
        self._opened = ExitStack()

    def __enter__(self) -> ExternalData:
        return self

    def __exit__(self, *error: object) -> bool | None:
        return self._opened.__exit__(*error)  # type: ignore[arg-type]  # three arguments, as Python passes them

    def read(self, entries: Mapping[str, str], size: int, where: str) -> Bytes:
        """Reads the bytes of one tensor; tensors of one range share them.

        Args:
          entries: the tensor's external-data keys (`location`, and optionally `offset` and `length`).
          size: bytes the tensor's shape and type need.
          where: the tensor, for messages.
        Raises:
          UnsafeModelError: the location leaves the folder, or is or passes through a link.
          InvalidModelError: unknown keys, a missing file, or bytes beyond its end.
        """
        unknown = sorted(set(entries) - _KEYS)
        if unknown:
            raise InvalidModelError("External data has known keys only", got=f"key {', '.join(unknown)}", where=where)
        try:
            offset = int(entries.get("offset") or 0)
            length = int(entries.get("length") or size)
        except ValueError as error:
            raise InvalidModelError(
                "External data's offset and length are integers", got=str(dict(entries)), where=where
            ) from error
        location = entries.get("location", "")
        file = self._file(location, where)
        file_size = size_of(file)
        if offset < 0 or length != size or offset + length > file_size:
            raise InvalidModelError(
                "External data must lie within its file and fill the tensor",
                got=f"offset {offset}, length {length}, file of {file_size} bytes, tensor of {size} bytes",
                where=f"{where}, file `{location}`",
                fix="export the model again; the data file may be truncated",
            )
        self._total += length
        self._limits.check("external_bytes", self._total, where=where)
        check_memory(self._total, where)
        key = _Range(location, offset, length)
        if key not in self._ranges:
            self._ranges[key] = read_range(file, offset, length, f"{where}, file `{location}`")
        return self._ranges[key]

    def content_sha256(self, graph_sha256: str) -> str:
        """Returns the identity of a model, as `Origin.content_sha256` defines it.

        Args:
          graph_sha256: hash of the graph's file.
        """
        if not self._ranges:
            return graph_sha256
        ranges = sorted(self._ranges)
        hashes = each(lambda key: sha256(self._ranges[key]), ranges)
        lines = [
            f"{digest} {offset} {length} {location}"
            for digest, (location, offset, length) in zip(hashes, ranges, strict=True)
        ]
        text = "\n".join(["modeldiff-external-data-1", graph_sha256, *lines])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _file(self, location: str, where: str) -> BufferedIOBase:
        if location not in self._files:
            file = self._opened.enter_context(self._open(location, where))
            self._opened.enter_context(unchanged(file.fileno(), "A model's data file", location, InvalidModelError))
            self._files[location] = file
        return self._files[location]

    def _open(self, location: str, where: str) -> BufferedIOBase:
        if self._folder is None:
            raise InvalidModelError(
                "A model given as bytes must hold all its data",
                got=f"external data `{location}`",
                where=where,
                fix="load it from its file",
            )
        parts = location.split("/")
        if not location or "\\" in location or "\0" in location or any(part in ("", ".", "..") for part in parts):
            raise self._unsafe("a plain relative path", f"`{location}`", where)
        try:
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise InvalidModelError(
                "A model's folder must be readable", got=error.strerror or str(error), where=str(self._folder)
            ) from error
        try:
            for part in parts[:-1]:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = inner
            self._check_plain(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False), location, where)
            # O_NONBLOCK: opening does not wait if the file has become a named pipe since the check
            handle = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except FileNotFoundError as error:
            raise InvalidModelError(
                "A model's external data must lie beside it",
                got=f"no file `{location}`",
                where=where,
                fix="copy it there",
            ) from error
        except OSError as error:
            if error.errno in _NO_PLAIN_PATH:
                raise self._unsafe("a path without links", f"`{location}`", where) from error
            raise InvalidModelError(
                "A model's external data must be readable", got=f"`{location}`: {error.strerror}", where=where
            ) from error
        finally:
            os.close(folder)
        file = os.fdopen(handle, "rb")
        try:
            self._check_plain(os.fstat(handle), location, where)
        except UnsafeModelError:
            file.close()
            raise
        return file

    def _check_plain(self, status: os.stat_result, location: str, where: str) -> None:
        kind = "a link" if stat.S_ISLNK(status.st_mode) else kind_of(status)
        if kind or status.st_nlink != 1:
            got = f"`{location}`, {kind or 'a file with several names'}"
            raise self._unsafe("a regular file with one name (no link, no hard link)", got, where)

    def _unsafe(self, wanted: str, got: str, where: str) -> UnsafeModelError:
        return UnsafeModelError(
            f"External data must be {wanted} below the model's folder",
            got=got,
            where=where,
            fix="do not trust this file; if it is yours, save it again with its data beside it",
        )
