"""Splits the weights from an ONNX file as it is read, before protobuf copies them.

A parsed message holds a copy of every byte, and arrays made of it another one. So the wire format of the file is walked
first, as far as the initializers of the main graph: the bytes of large ones are read into separate arrays, and protobuf
parses the rest. A file that does not have the expected wire format is left to protobuf unchanged.

Wire format: each field is a varint of (number * 8 + type) and a value; nested messages and bytes are of type 2, with a
varint of their length before them (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BufferedIOBase

from modeldiff_jax.models.files import Bytes, read_exactly

SMALLEST = 2**16
"""Fewest bytes of raw data for which an initializer is split from the message."""
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9  # field numbers of onnx.proto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; the others are gone since proto3
_LONGEST_VARINT = 10
_LENGTH = 5  # bytes reserved for a length that is written later: enough for a message's limit of 2 GiB
_FIELDS = 2_000_000
"""Most fields walked: ten for each node of the largest graphs. A hostile file of tiny fields may have a billion."""
_CHUNK = 2**20


class _NotPlainError(Exception):
    """The bytes do not have the expected wire format, or have too many fields."""


@dataclass(frozen=True, slots=True)
class SplitModel:
    """A serialised ModelProto in two parts.

    Attributes:
      message: the ModelProto without the raw data of its large initializers.
      raw_data: that data, by the initializer's position in the main graph.
    """

    message: bytes
    raw_data: Mapping[int, Bytes]


def split_initializers(stream: BufferedIOBase, size: int, where: str, smallest: int = SMALLEST) -> SplitModel:
    """Reads a serialised ModelProto, and splits the raw data of large initializers from it.

    Args:
      stream: at its start; nothing in it is trusted. Each byte is read once, unless the bytes do not have the expected
        wire format: then the stream is read again from its start.
      size: bytes of the message.
      where: the file, for messages.
      smallest: fewest bytes of raw data for which an initializer is split from the message.
    Returns:
      The two parts; `message` is the whole if nothing was split from it.
    Raises:
      InvalidModelError: the stream ends before `size` bytes.
    """
    walk = _Walk(stream, where, smallest)
    try:
        walk.message(size, _MODEL_GRAPH, walk.graph)
    except _NotPlainError:
        stream.seek(0)
        return SplitModel(read_exactly(stream, size, where).tobytes(), {})
    return SplitModel(bytes(walk.copied), walk.raw_data)


@dataclass(frozen=True, slots=True)
class _Field:
    """The start of a field: its number, wire type and leading bytes, and how many bytes of its value follow."""

    number: int
    kind: int
    head: bytes
    size: int


class _Walk:
    """Walks a message field by field, and copies it without the raw data of large initializers."""

    def __init__(self, stream: BufferedIOBase, where: str, smallest: int) -> None:
        self._stream, self._where, self._smallest = stream, where, smallest
        self._position = self._initializers = self._fields = 0
        self.copied = bytearray()
        self.raw_data: dict[int, Bytes] = {}

    def message(self, size: int, number: int, inner: Callable[[int], None]) -> None:
        """Walks a message of `size` bytes; `inner` is called with the size of each field `number` and walks it."""
        end = self._position + size
        while self._position < end:
            field = self._field(end)
            if field.number != number or field.kind != _BYTES:
                self._copy(field)
                continue
            # the length of the inner message is known once it is copied; protobuf accepts a padded varint
            self.copied += _varint(field.number << 3 | _BYTES)
            length_at = len(self.copied)
            self.copied += bytes(_LENGTH)
            inner(field.size)
            length = len(self.copied) - length_at - _LENGTH
            self.copied[length_at : length_at + _LENGTH] = _varint(length, _LENGTH)

    def graph(self, size: int) -> None:
        """Walks a GraphProto."""
        self.message(size, _GRAPH_INITIALIZER, self._tensor)

    def _tensor(self, size: int) -> None:
        """Walks a TensorProto, and reads large raw data into an array."""
        index, end, written = self._initializers, self._position + size, 0
        self._initializers += 1
        if size < self._smallest:
            self._copy_bytes(size)
            return
        while self._position < end:
            field = self._field(end)
            raw = field.number == _TENSOR_RAW_DATA
            written += raw
            if written > 1:  # protobuf would use the last
                raise _NotPlainError
            if raw and field.kind == _BYTES and field.size >= self._smallest:
                self.raw_data[index] = read_exactly(self._stream, field.size, self._where)
                self._position += field.size
            else:
                self._copy(field)

    def _copy(self, field: _Field) -> None:
        self.copied += field.head
        self._copy_bytes(field.size)

    def _copy_bytes(self, size: int) -> None:
        self._position += size
        while size:
            chunk = self._stream.read(min(_CHUNK, size))
            if not chunk:
                raise _NotPlainError  # truncated meanwhile, which reading it again will report
            self.copied += chunk
            size -= len(chunk)

    def _field(self, end: int) -> _Field:
        """Reads the start of the next field; the whole field must lie before `end`."""
        self._fields += 1
        if self._fields > _FIELDS:
            raise _NotPlainError
        tag, head = self._number(end)
        kind, size = tag & 7, 0
        if kind == _VARINT:
            _, value = self._number(end)
            head += value
        elif kind == _BYTES:
            size, length = self._number(end)
            head += length
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise _NotPlainError
        if not tag >> 3 or size > end - self._position:
            raise _NotPlainError
        return _Field(tag >> 3, kind, head, size)

    def _number(self, end: int) -> tuple[int, bytes]:
        """Reads a varint; returns its value and its bytes."""
        value, head = 0, b""
        while self._position < end and len(head) < _LONGEST_VARINT:
            byte = self._stream.read(1)
            if not byte:
                break
            self._position += 1
            value |= (byte[0] & 127) << 7 * len(head)
            head += byte
            if byte[0] < 128:
                return value, head
        raise _NotPlainError


def _varint(value: int, width: int = 1) -> bytes:
    """Returns a number as a varint of at least `width` bytes."""
    encoded = bytearray()
    while value > 127 or len(encoded) + 1 < width:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])
