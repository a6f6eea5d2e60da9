"""Cuts the weights out of an ONNX file before protobuf copies them.

A parsed message holds a copy of every byte, and arrays made of it another one. So the file's own wire format is walked
first, as far as the initializers of the main graph: the bytes of large ones stay where they are, as views, and protobuf
parses what is left. Whatever is not plainly of that form is left to protobuf, whole.

Wire format: each field is a varint of (number * 8 + type) and a value; nested messages and bytes are of type 2, with a
varint of their length before them (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8

Bytes: TypeAlias = UInt8[np.ndarray, " _"]

LEAST = 2**16
"""Smaller ones are not worth a cut."""
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9  # field numbers of onnx.proto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; the others are gone since proto3
_LONGEST = 10  # bytes of a varint
_FIELDS = 2_000_000
"""Fields walked at most: ten for each node of the largest graphs. A file of nothing but tiny fields has a billion."""


class _NotPlainError(Exception):
    """Not the wire format, or too much of it."""


def cut_out(data: bytes | Bytes, least: int = LEAST) -> tuple[bytes, Mapping[int, Bytes]]:
    """A serialised ModelProto without the raw data of its large initializers, and those.

    Args:
      data: the file's bytes; nothing in them is trusted.
      least: bytes of raw data from which on a tensor is cut.
    Returns:
      The rest, and position among the main graph's initializers -> its raw data, a view of `data`. All of `data` and
      nothing where there is nothing to cut or the bytes are not plain.
    """
    array = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    walk = _Walk(array.data, least)
    try:
        rest = walk.model()
    except _NotPlainError:
        walk.found.clear()
    if not walk.found:
        return (data if isinstance(data, bytes) else data.tobytes()), {}
    return b"".join(rest.pieces), {i: array[start:end] for i, (start, end) in walk.found.items()}


@dataclass(frozen=True, slots=True)
class _Field:
    """One field: its number and wire type, where it begins, where its value lies."""

    number: int
    kind: int
    begin: int
    start: int
    end: int


class _Parts:
    """A message in the making: pieces of the file, and lengths written anew."""

    def __init__(self) -> None:
        self.pieces: list[memoryview | bytes] = []
        self.size = 0

    def add(self, piece: memoryview | bytes) -> None:
        self.pieces.append(piece)
        self.size += len(piece)

    def nest(self, number: int, inner: _Parts) -> None:
        """Adds a field that holds a message."""
        self.add(_varint(number << 3 | _BYTES) + _varint(inner.size))
        self.pieces += inner.pieces
        self.size += inner.size


class _Walk:
    def __init__(self, view: memoryview, least: int) -> None:
        self._view, self._least = view, least
        self._initializers = self._fields = 0
        self.found: dict[int, tuple[int, int]] = {}

    def model(self) -> _Parts:
        return self._rebuilt(0, len(self._view), _MODEL_GRAPH, self._graph)

    def _graph(self, start: int, end: int) -> _Parts:
        return self._rebuilt(start, end, _GRAPH_INITIALIZER, self._tensor)

    def _tensor(self, start: int, end: int) -> _Parts:
        parts, index = _Parts(), self._initializers
        self._initializers += 1
        raw = [f for f in self._walk(start, end) if f.number == _TENSOR_RAW_DATA] if end - start >= self._least else []
        if len(raw) == 1 and raw[0].kind == _BYTES and raw[0].end - raw[0].start >= self._least:
            self.found[index] = raw[0].start, raw[0].end
            parts.add(self._view[start : raw[0].begin])
            start = raw[0].end
        parts.add(self._view[start:end])
        return parts

    def _rebuilt(self, start: int, end: int, number: int, inner: Callable[[int, int], _Parts]) -> _Parts:
        """A message with each of its messages of one number rebuilt; what lies between stays in one piece."""
        parts, copied = _Parts(), start
        for field in self._walk(start, end):
            if field.number == number and field.kind == _BYTES:
                parts.add(self._view[copied : field.begin])
                parts.nest(number, inner(field.start, field.end))
                copied = field.end
        parts.add(self._view[copied:end])
        return parts

    def _walk(self, start: int, end: int) -> Iterator[_Field]:
        at = start
        while at < end:
            self._fields += 1
            if self._fields > _FIELDS:
                raise _NotPlainError
            begin = at
            tag, at = self._number(at, end)
            kind, size = tag & 7, 0
            if kind == _VARINT:
                _, after = self._number(at, end)
                size = after - at
            elif kind == _BYTES:
                size, at = self._number(at, end)
            elif kind in (_FIXED32, _FIXED64):
                size = 4 if kind == _FIXED32 else 8
            else:
                raise _NotPlainError
            if not tag >> 3 or size > end - at:
                raise _NotPlainError
            yield _Field(tag >> 3, kind, begin, at, at + size)
            at += size

    def _number(self, at: int, end: int) -> tuple[int, int]:
        """A varint, and where it ends."""
        value = 0
        for i, byte in enumerate(self._view[at : min(end, at + _LONGEST)]):
            value |= (byte & 127) << 7 * i
            if byte < 128:
                return value, at + i + 1
        raise _NotPlainError


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
