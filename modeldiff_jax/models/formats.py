"""The table of file formats: how each is recognised by content, and how a model is read from it.

`load`, discovery in folders and scanning of packages all use this table, so that a new format is one entry here.
Formats that hold no model, or none that can be read, have an entry with the advice to give.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import TypeAlias

from modeldiff_jax.limits import Limits
from modeldiff_jax.models.graph.ir import Graph
from modeldiff_jax.models.weights.pickled import is_pickle
from modeldiff_jax.models.weights.safetensors import is_safetensors
from modeldiff_jax.models.zip_archive import is_zip

HEAD = 4096
"""Bytes at the start of a file that recognition reads."""


@dataclass(frozen=True, slots=True)
class ReadModel:
    """The contents of a model's file.

    Attributes:
      graph: the model.
      sha256, content_sha256: of the bytes that were read, as `Origin` defines them.
    """

    graph: Graph
    sha256: str
    content_sha256: str


ReadGraph: TypeAlias = Callable[[BufferedIOBase, Path, Limits, str], ReadModel]
"""(the file at its start, folder its external data lie in, limits, the file for messages) -> graph and hashes."""


@dataclass(frozen=True, slots=True)
class Format:
    """A file format.

    Attributes:
      name: as in `Origin.format`; a description for a format that cannot be read.
      recognise: (first `HEAD` bytes, size of the whole file) -> whether the file has this format.
      domain: dialect of the operators that its nodes call without naming a domain.
      read_graph: reads it; None for a format that cannot be read.
      advice: for users with a file in a format that cannot be read.
    """

    name: str
    recognise: Callable[[bytes, int], bool]
    domain: str = ""
    read_graph: ReadGraph | None = None
    advice: str = ""


def _begins(magic: bytes, offset: int = 0) -> Callable[[bytes, int], bool]:
    return lambda head, size: head[offset : offset + len(magic)] == magic


def _by_head(recognises: Callable[[bytes], bool]) -> Callable[[bytes, int], bool]:
    return lambda head, size: recognises(head)


_MODEL_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
"""Field numbers of onnx.proto's ModelProto, with their wire types: 0 a varint, 2 bytes after their length."""
_VARINT, _BYTES = 0, 2


def _is_onnx(head: bytes, size: int) -> bool:
    """Returns whether a file begins with fields of a ModelProto that lie within it, a graph or IR version among them.

    ONNX has no magic number; protobuf's wire format is checked instead.
    """
    numbers: set[int] = set()
    position = 0
    while position < min(len(head), size):
        key, position = _varint(head, position)
        number, wire = key >> 3, key & 7
        if _MODEL_FIELDS.get(number) != wire:
            return False
        value, position = _varint(head, position)
        if position > len(head):  # cut by the head, not by the file
            return bool(numbers) and size > len(head)
        numbers.add(number)
        if wire == _BYTES:
            position += value
            if position > size:
                # a graph longer than the file: the reader has the better message for a truncated file
                return number == 7 and 1 in numbers
    return bool(numbers & {1, 7})


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """Returns a number and the position after it, which is beyond the data if they end within the number."""
    value = 0
    for i in range(10):
        if start + i >= len(data):
            return value, len(data) + 1
        value |= (data[start + i] & 0x7F) << (7 * i)
        if data[start + i] < 0x80:
            return value, start + i + 1
    return value, len(data) + 1


def _read_onnx(stream: BufferedIOBase, folder: Path, limits: Limits, where: str) -> ReadModel:
    from modeldiff_jax.models.onnx import read_graph_file  # onnx takes 0.4 s to import

    return ReadModel(*read_graph_file(stream, folder=folder, limits=limits, where=where))


_TO_ONNX = "export the model to ONNX"
_WITH_MODULE = "weights need a module: md.from_flax(module, md.load_weights(path), input_spec); or export to ONNX"

FORMATS: tuple[Format, ...] = (
    Format("onnx", _is_onnx, domain="ai.onnx", read_graph=_read_onnx),
    Format("safetensors: weights alone", _by_head(is_safetensors), advice=_WITH_MODULE),
    Format("a zip archive (PyTorch, Keras or an app package)", _by_head(is_zip), advice=_WITH_MODULE),
    Format("a pickle, which could run code", _by_head(is_pickle), advice=_WITH_MODULE),
    Format("an HDF5 file", _begins(b"\x89HDF\r\n"), advice=_TO_ONNX),
    Format("a TFLite model", _begins(b"TFL3", 4), advice="convert it to ONNX"),
    Format("a GGUF model", _begins(b"GGUF"), advice="convert it to ONNX"),
    Format(
        "a Git LFS pointer instead of the file",
        _begins(b"version https://git-lfs"),
        advice="fetch the file: git lfs pull",
    ),
)
"""In the order they are tried: the structure of ONNX is checked first, as a name in it may hold any magic number."""


def recognise(head: bytes, size: int) -> Format | None:
    """Returns the format of a file; None if the table has none for it.

    Args:
      head: its first `HEAD` bytes, or all of them.
      size: of the whole file, in bytes.
    """
    return next((known for known in FORMATS if known.recognise(head, size)), None)


def format_named(name: str) -> Format | None:
    """Returns the format that `Origin.format` names; None for objects, which have none."""
    return next((known for known in FORMATS if known.name == name), None)
