"""`.npy` and `.npz` files of strangers: sizes are read from the headers and bounded before any array is."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from modeldiff_jax.errors import InvalidInputError, LimitExceededError
from modeldiff_jax.limits import Limits

_MEMBERS = 64


def read_arrays(path: Path, limits: Limits, bound: str) -> dict[str, np.ndarray]:
    """Arrays of a file by name; a `.npy` file's single one is named `""`. Which of both it is, its content says.

    Args:
      path: the file.
      limits: `bound` of them holds for all arrays together, uncompressed.
    Raises:
      InvalidInputError: no such file, neither format, damaged, or holding Python objects.
      LimitExceededError: the bound was hit.
    """
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise InvalidInputError("An array file must exist", got=got, where=str(path), fix="check the path")
    try:
        with path.open("rb") as file:
            magic = file.read(6)
            file.seek(0)
            if magic == b"\x93NUMPY":
                limits.check(bound, _declared_bytes(file), where=str(path))
                file.seek(0)
                return {"": np.lib.format.read_array(file, allow_pickle=False)}
            if magic[:4] == b"PK\x03\x04":
                return _read_zip(file, path, limits, bound)
    except LimitExceededError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise InvalidInputError(
            "An array file must be a whole .npy or .npz without Python objects", got=str(error)[:200], where=str(path)
        ) from error
    got = "an empty file" if not magic else "neither"
    raise InvalidInputError("An array file is a .npy or a .npz", got=got, where=str(path))


def _read_zip(file: io.BufferedIOBase, path: Path, limits: Limits, bound: str) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > _MEMBERS:
            raise InvalidInputError(f"A .npz holds at most {_MEMBERS} arrays", got=str(len(members)), where=str(path))
        # the sizes a zip declares are its word only, but zipfile reads no member beyond its declared size
        limits.check(bound, sum(member.file_size for member in members), where=str(path))
        arrays = {}
        for member in members:
            with archive.open(member) as stream:
                data = io.BytesIO(stream.read())
            if _declared_bytes(data) > member.file_size:
                raise InvalidInputError("An array fits into its file", got=member.filename, where=str(path))
            data.seek(0)
            arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(data, allow_pickle=False)
    return arrays


def _declared_bytes(file: io.BufferedIOBase) -> int:
    """Bytes of the array a header announces."""
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which could run code")
    return math.prod(shape) * dtype.itemsize
