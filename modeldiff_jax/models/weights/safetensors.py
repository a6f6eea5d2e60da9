"""`.safetensors`: eight bytes of header length, a JSON header, and the tensors' bytes without gaps or overlaps.

Read here and not by the package of that name because views of the mapped file are wanted, for every element type JAX
has, and refusals with a reason.
"""

from __future__ import annotations

import json
import math
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import UInt8

from modeldiff_jax.errors import InvalidModelError, UnsupportedModelError
from modeldiff_jax.limits import Limits

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
_MAX_RANK = 64  # numpy's


def is_safetensors(data: UInt8[np.ndarray, " size"] | bytes) -> bool:
    """Whether bytes begin as such a file does: a length that fits, then an opening brace."""
    head = bytes(data[: _PREFIX + 1])
    return len(head) > _PREFIX and head[_PREFIX:] == b"{" and int.from_bytes(head[:_PREFIX], "little") < len(data)


def read_safetensors(data: UInt8[np.ndarray, " size"], limits: Limits, where: str) -> dict[str, np.ndarray]:
    """Arrays by name, views of `data`.

    Args:
      data: the file's bytes.
      limits: `header_bytes` and `tensor_elements` apply.
      where: the file, for messages.
    Raises:
      InvalidModelError: a header that is not as the format says, or ranges that do not tile the rest of the file.
      UnsupportedModelError: an element type we do not have.
      LimitExceededError: a bound was hit.
    """
    length = int.from_bytes(data[:_PREFIX].tobytes(), "little")
    limits.check("header_bytes", length, where=where)
    if _PREFIX + length > len(data):
        raise _invalid("The header lies within the file", f"{length} bytes of {len(data) - _PREFIX}", where)
    try:
        header = json.loads(data[_PREFIX : _PREFIX + length].tobytes().decode("utf-8"), object_pairs_hook=_unique)
        "".join(header).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise _invalid("The header is JSON without doubles", f"{type(error).__name__}: {error}"[:200], where) from error
    if not isinstance(header, dict):
        raise _invalid("The header is a JSON object", type(header).__name__, where)
    header.pop("__metadata__", None)
    limits.check("tensors", len(header), where=where)
    rest = data[_PREFIX + length :]
    found: dict[str, np.ndarray] = {}
    ranges: list[tuple[int, int]] = []
    for name, entry in header.items():
        begin, end, dtype, shape = _entry(entry, limits, f"{where}, tensor `{name}`")
        if end > len(rest):
            raise _invalid("A tensor's bytes lie within the file", f"up to {end} of {len(rest)}", f"{where}, `{name}`")
        ranges.append((begin, end))
        found[name] = rest[begin:end].view(dtype).reshape(shape)
    at = 0
    for begin, end in sorted(ranges):
        if begin != at:
            raise _invalid("Tensors follow each other without gap or overlap", f"{begin} after {at}", where)
        at = end
    if at != len(rest):
        raise _invalid("Tensors fill the file", f"{len(rest) - at} bytes too many", where)
    return found


def _entry(entry: Any, limits: Limits, where: str) -> tuple[int, int, np.dtype[Any], tuple[int, ...]]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _invalid("A tensor has dtype, shape and data_offsets", str(entry)[:200], where)
    shape, offsets, kind = entry["shape"], entry["data_offsets"], entry["dtype"]
    # `type` and not `isinstance`: True is no size
    numbers = isinstance(shape, list) and isinstance(offsets, list) and all(type(n) is int for n in shape + offsets)
    if not numbers or len(offsets) != 2 or len(shape) > _MAX_RANK or not all(0 <= n < 2**63 for n in shape + offsets):
        raise _invalid("Sizes and offsets are whole numbers below 2**63, none negative", str(entry)[:200], where)
    dtype = _DTYPES.get(kind) if isinstance(kind, str) else None
    if dtype is None:
        raise UnsupportedModelError(
            "A tensor has an element type we know", got=str(kind)[:200], where=where, fix=f"known: {', '.join(_DTYPES)}"
        )
    # Zeros aside: numpy refuses an empty array whose other sizes are too large
    limits.check("tensor_elements", math.prod(n for n in shape if n), where=where)
    begin, end = offsets
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise _invalid("A tensor's bytes fill its shape", f"{end - begin} for {shape} of {kind}"[:200], where)
    return begin, end, dtype, tuple(shape)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _invalid(rule: str, got: str, where: str) -> InvalidModelError:
    return InvalidModelError(rule, got=got, where=where, fix="save the weights again")
