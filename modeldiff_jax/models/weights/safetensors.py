"""Reads `.safetensors`: eight bytes of header length, a JSON header, and the tensors' bytes without gaps or overlaps.

The package of that name is not used: it returns no NumPy arrays of bfloat16 and float8, and its errors give no reason.
"""

from __future__ import annotations

import json
import math
from io import BufferedIOBase
from typing import Any

import ml_dtypes
import numpy as np

from modeldiff_jax.errors import InvalidModelError, UnsupportedModelError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.files import read_exactly, read_range, size_of

_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("<u1"),
    "I8": np.dtype("<i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
}
_PREFIX = 8
_LONGEST_HEADER = 100_000_000  # bytes, by the format
_MAX_RANK = 64  # numpy's


def is_safetensors(head: bytes) -> bool:
    """Returns whether a file's first bytes are those of safetensors: an allowed header length, and a brace."""
    return len(head) > _PREFIX and head[_PREFIX] == ord("{") and _length(head) <= _LONGEST_HEADER


def read_safetensors(stream: BufferedIOBase, limits: Limits, where: str) -> dict[str, np.ndarray]:
    """Reads all arrays by name, in the header's order.

    Args:
      stream: the file.
      limits: `header_bytes`, `tensors` and `tensor_elements` apply.
      where: the file, for messages.
    Returns:
      Read-only arrays, each in memory of its own.
    Raises:
      InvalidModelError: the header violates the format, or the ranges do not tile the rest of the file.
      UnsupportedModelError: an element type that is not supported.
      LimitExceededError: a limit was exceeded.
    """
    size = size_of(stream) - _PREFIX
    length = _length(read_range(stream, 0, _PREFIX, where).tobytes())
    limits.check("header_bytes", length, where=where)
    if length > size:
        raise _invalid("The header lies within the file", f"{length} bytes of {size}", where)
    header = _header(read_exactly(stream, length, where).tobytes(), where)
    limits.check("tensors", len(header), where=where)
    entries = {name: _entry(entry, limits, f"{where}, tensor `{name}`") for name, entry in header.items()}
    end = 0
    for begin, next_end, _, _ in sorted(entries.values(), key=lambda entry: entry[:2]):
        if begin != end:
            raise _invalid("Tensors follow each other without gap or overlap", f"{begin} after {end}", where)
        end = next_end
    if end != size - length:
        raise _invalid("Tensors fill the file", f"{end} bytes of tensors in {size - length}", where)
    start = _PREFIX + length
    return {
        name: read_range(stream, start + begin, end - begin, f"{where}, tensor `{name}`").view(dtype).reshape(shape)
        for name, (begin, end, dtype, shape) in entries.items()
    }


def _length(head: bytes) -> int:
    return int.from_bytes(head[:_PREFIX], "little")


def _header(text: bytes, where: str) -> dict[str, Any]:
    """Parses the header; returns the tensors' entries by name."""
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
        "".join(header).encode()  # fails for half a surrogate pair
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        got = f"{type(error).__name__}: {error}"
        raise _invalid("The header is JSON without duplicate names", got, where) from error
    if not isinstance(header, dict):
        raise _invalid("The header is a JSON object", type(header).__name__, where)
    header.pop("__metadata__", None)
    return header


def _entry(entry: Any, limits: Limits, where: str) -> tuple[int, int, np.dtype[Any], tuple[int, ...]]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _invalid("A tensor has dtype, shape and data_offsets", str(entry), where)
    shape, offsets, kind = entry["shape"], entry["data_offsets"], entry["dtype"]
    # `type` and not `isinstance`: True is not a size
    numbers = isinstance(shape, list) and isinstance(offsets, list) and all(type(n) is int for n in shape + offsets)
    if not numbers or len(offsets) != 2 or len(shape) > _MAX_RANK or not all(0 <= n < 2**63 for n in shape + offsets):
        raise _invalid("Sizes and offsets are whole numbers below 2**63, none negative", str(entry), where)
    dtype = _DTYPES.get(kind) if isinstance(kind, str) else None
    if dtype is None:
        raise UnsupportedModelError(
            "A tensor has a known element type", got=str(kind), where=where, fix=f"known: {', '.join(_DTYPES)}"
        )
    # without zeros: numpy refuses an empty array whose other sizes are too large
    limits.check("tensor_elements", math.prod(n for n in shape if n), where=where)
    begin, end = offsets
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise _invalid("A tensor's bytes fill its shape", f"{end - begin} for {shape} of {kind}", where)
    return begin, end, dtype, tuple(shape)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a repeated name")
    return entries


def _invalid(rule: str, got: str, where: str) -> InvalidModelError:
    return InvalidModelError(rule, got=got, where=where, fix="save the weights again")
