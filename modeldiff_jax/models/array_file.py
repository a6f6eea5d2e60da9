"""Reads untrusted `.npy` and `.npz` files: sizes are read from the headers and checked before any array is read."""

from __future__ import annotations

import io
import math
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np

from modeldiff_jax.errors import InvalidInputError, InvalidModelError, UnsupportedModelError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.files import head_of, read_exactly, size_of
from modeldiff_jax.models.zip_archive import ZipArchive, is_zip
from modeldiff_jax.runtime.regular_file import open_regular

_MEMBERS = 64
_NOUN = "An array file"


def is_npy(head: bytes) -> bool:
    """Returns whether a file's first bytes are those of a `.npy` file."""
    return head[:6] == b"\x93NUMPY"


def read_arrays(path: Path, limits: Limits, bound: str) -> dict[str, np.ndarray]:
    """Reads the arrays of a `.npy` or `.npz` file, recognised by content.

    Args:
      path: the file.
      limits: limits on hostile input.
      bound: name of the limit on the bytes of all arrays together, uncompressed.
    Returns:
      Arrays by name; the single one of a `.npy` file is named `""`.
    Raises:
      InvalidInputError: no such file, neither format, damaged, changed while it was read, or holding Python objects.
      LimitExceededError: the limit was exceeded.
    """
    where = str(path)
    with open_regular(path, _NOUN) as stream:
        head = head_of(stream)
        if is_npy(head):
            limits.check(bound, size_of(stream), where=where)
            return {"": _read_array(stream, limits, bound, where)}
        if is_zip(head):
            return _read_zip(stream, limits, bound, where)
    got = "neither" if head else "an empty file"
    raise InvalidInputError("An array file is a .npy or a .npz", got=got, where=where)


def _read_zip(stream: BufferedIOBase, limits: Limits, bound: str, where: str) -> dict[str, np.ndarray]:
    try:
        archive = ZipArchive(stream, limits, bound, where)
        if len(archive.entries) > _MEMBERS:
            raise InvalidInputError(
                f"A .npz holds at most {_MEMBERS} arrays", got=str(len(archive.entries)), where=where
            )
        arrays = {}
        for name, entry in archive.by_name.items():
            member = io.BytesIO(archive.read(entry).data)
            arrays[name.removesuffix(".npy")] = _read_array(member, limits, bound, f"{where}, `{name}`")
        return arrays
    except (InvalidModelError, UnsupportedModelError) as error:
        raise _not_whole(error.got, error.where) from error


def _read_array(stream: BufferedIOBase, limits: Limits, bound: str, where: str) -> np.ndarray:
    """Reads the array of a `.npy` file."""
    try:
        shape, in_fortran_order, dtype = _header(stream)
    except Exception as error:  # a header is a Python literal, whose parser fails in many ways
        raise _not_whole(str(error), where) from error
    if dtype.hasobject:
        raise _not_whole("Python objects, which could run code", where)
    size = math.prod(shape) * dtype.itemsize
    limits.check(bound, size, where=where)
    available = size_of(stream) - stream.tell()
    if not 0 <= size <= available:
        raise _not_whole(f"{available} bytes of an array of {size}", where)
    try:
        data = read_exactly(stream, size, where, _NOUN, InvalidInputError)
        return np.ndarray(shape, dtype, data, order="F" if in_fortran_order else "C")
    except (ValueError, TypeError) as error:  # one size is zero, and the product of the others overflows
        if isinstance(error, InvalidInputError):
            raise
        raise _not_whole(str(error), where) from error


def _header(stream: BufferedIOBase) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Reads the shape, whether the first axis varies fastest, and the element type that a `.npy` file declares."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"format version {version[0]}.{version[1]}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, in_fortran_order, dtype = read(stream)
    return shape, in_fortran_order, dtype


def _not_whole(got: str, where: str) -> InvalidInputError:
    return InvalidInputError("An array file must be a whole .npy or .npz without Python objects", got=got, where=where)
