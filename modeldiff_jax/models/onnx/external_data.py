"""Opens a tensor's external data without letting the model choose what is read.

A model names its data files, so the name is hostile: published attacks use `..`, absolute paths, symbolic links in any
component, and hard links to files elsewhere (CVE-2022-25882, CVE-2024-27318, CVE-2026-27489, CVE-2026-34446). Each
component is opened relative to the one before it and never through a link, so no check can be raced, and a regular
file with a second name is refused.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from modeldiff_jax.errors import InvalidModelError, UnsafeModelError
from modeldiff_jax.limits import Limits

_KEYS = frozenset({"location", "offset", "length", "checksum", "basepath"})


class ExternalData:
    """The data files below one model's folder, mapped read-only, once each.

    Args:
      folder: the model's folder; `None` for a model that came as bytes, which may then have no external data.
      limits: `external_bytes` bounds what all tensors take together.
    """

    def __init__(self, folder: Path | None, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._maps: dict[str, np.ndarray] = {}
        self._taken = 0

    def read(self, entries: Mapping[str, str], size: int, where: str) -> UInt8[np.ndarray, " size"]:
        """The bytes of one tensor.

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
        data = self._map(location, where)
        if offset < 0 or length != size or offset + length > data.size:
            raise InvalidModelError(
                "External data must lie within its file and fill the tensor",
                got=f"offset {offset}, length {length}, file of {data.size} bytes, tensor of {size} bytes",
                where=f"{where}, file `{location}`",
                fix="export the model again; the data file may be truncated",
            )
        self._taken += length
        self._limits.check("external_bytes", self._taken, where=where)
        return data[offset : offset + length]

    def _map(self, location: str, where: str) -> np.ndarray:
        if location not in self._maps:
            self._maps[location] = self._open(location, where)
        return self._maps[location]

    def _open(self, location: str, where: str) -> np.ndarray:
        if self._folder is None:
            raise InvalidModelError(
                "A model given as bytes must hold its own data",
                got=f"external data `{location}`",
                where=where,
                fix="load it from its file",
            )
        parts = location.split("/")
        if not location or "\\" in location or "\0" in location or any(part in ("", ".", "..") for part in parts):
            raise self._unsafe("a plain relative path", location, where)
        try:
            handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise InvalidModelError(
                "A model's folder must be readable", got=error.strerror or str(error), where=str(self._folder)
            ) from error
        try:
            for part in parts[:-1]:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
                os.close(handle)
                handle = inner
            # O_NONBLOCK: a named pipe must not make us wait
            file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle)
        except FileNotFoundError as error:
            raise InvalidModelError(
                "A model's external data must lie beside it",
                got=f"no file `{location}`",
                where=where,
                fix="copy it there",
            ) from error
        except OSError as error:  # ELOOP or ENOTDIR: a link, or a file where a folder should be
            raise self._unsafe("a path without links", location, where) from error
        finally:
            os.close(handle)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise self._unsafe("a regular file with one name (no hard link)", location, where)
            if status.st_size == 0:
                return np.zeros(0, np.uint8)
            return np.frombuffer(mmap.mmap(file, 0, access=mmap.ACCESS_READ), np.uint8)
        finally:
            os.close(file)

    def _unsafe(self, wanted: str, location: str, where: str) -> UnsafeModelError:
        return UnsafeModelError(
            f"External data must be {wanted} below the model's folder",
            got=f"`{location}`",
            where=where,
            fix="do not trust this file; if it is yours, save it again with its data beside it",
        )
