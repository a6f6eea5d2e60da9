"""Reads PyTorch state dicts, `.pth` or `.pt`, without PyTorch and without running anything.

Two formats: a zip archive with one pickle and one stored entry for each storage (since 1.6), and a stream of pickles
followed by the storages. The pickle names storages, and the part of a storage that each tensor is.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from io import BufferedIOBase
from typing import Any

import ml_dtypes
import numpy as np

from modeldiff_jax.errors import InvalidModelError, UnsafeModelError, UnsupportedModelError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.files import Bytes, head_of, read_exactly, read_range, size_of
from modeldiff_jax.models.weights.pickled import Call, Name, Unpickled, is_pickle
from modeldiff_jax.models.zip_archive import ZipArchive, ZipEntry, is_zip

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_MAX_RANK = 64  # numpy's
_LONGEST_NAME = 1024

_SCALARS: dict[str, tuple[str, Any]] = {  # torch's dtype -> its storage's name and numpy's
    "float32": ("Float", "<f4"),
    "float64": ("Double", "<f8"),
    "float16": ("Half", "<f2"),
    "bfloat16": ("BFloat16", ml_dtypes.bfloat16),
    "int64": ("Long", "<i8"),
    "int32": ("Int", "<i4"),
    "int16": ("Short", "<i2"),
    "int8": ("Char", "<i1"),
    "uint8": ("Byte", "<u1"),
    "bool": ("Bool", "?"),
    "complex64": ("ComplexFloat", "<c8"),
    "complex128": ("ComplexDouble", "<c16"),
    "uint16": ("", "<u2"),  # types without a class of storages are stored as bytes
    "uint32": ("", "<u4"),
    "uint64": ("", "<u8"),
    "float8_e4m3fn": ("", ml_dtypes.float8_e4m3fn),
    "float8_e5m2": ("", ml_dtypes.float8_e5m2),
    "float8_e4m3fnuz": ("", ml_dtypes.float8_e4m3fnuz),
    "float8_e5m2fnuz": ("", ml_dtypes.float8_e5m2fnuz),
    "float8_e8m0fnu": ("", ml_dtypes.float8_e8m0fnu),
}
_BYTES = Name("torch.storage", "UntypedStorage")
_STORAGES: dict[Name, np.dtype[Any]] = {
    _BYTES: np.dtype(np.uint8),
    **{
        Name(module, f"{kind}Storage"): np.dtype(dtype)
        for kind, dtype in _SCALARS.values()
        for module in ("torch", "torch.cuda")
        if kind
    },
    **{
        Name("torch", f"Q{kind}Storage"): np.dtype(dtype)
        for kind, dtype in (("Int8", "i1"), ("UInt8", "u1"), ("Int32", "<i4"))
    },
}
_DTYPES = {Name("torch", name): np.dtype(dtype) for name, (_, dtype) in _SCALARS.items()}
_TENSOR = {Name("torch._utils", f"_rebuild_tensor{version}") for version in ("", "_v2")}
_TYPED = Name("torch._utils", "_rebuild_tensor_v3")  # with its element type, for those without a class of storages
_PARAMETER = {Name("torch._utils", f"_rebuild_parameter{kind}") for kind in ("", "_with_state")}
_SUBCLASS = Name("torch._tensor", "_rebuild_from_type_v2")
_ORDERED = Name("collections", "OrderedDict")
# Tensors whose values are not plain elements of a storage: name -> (description, advice)
_NO_PLAIN_TENSORS = {
    Name("torch._utils", "_rebuild_sparse_tensor"): ("a sparse tensor", "save tensor.to_dense()"),
    Name("torch._utils", "_rebuild_qtensor"): ("a quantised tensor", "save tensor.dequantize()"),
    Name("torch._utils", "_rebuild_nested_tensor"): ("a nested tensor", "save its parts"),
    Name("torch._utils", "_rebuild_meta_tensor_no_storage"): ("a tensor without values", "load the weights, then save"),
    Name("torch.nn.parameter", "UninitializedParameter"): (
        "a parameter that was never initialised",
        "call the module once on an input, then save its state_dict",
    ),
    Name("torch.nn.parameter", "UninitializedBuffer"): (
        "a buffer that was never initialised",
        "call the module once on an input, then save its state_dict",
    ),
}
# Names that may occur besides tensors, and are left out
_OTHERS = {
    Name("torch", "Size"),
    Name("torch", "device"),
    Name("torch", "Tensor"),
    Name("torch", "per_channel_affine"),
    Name("torch", "per_tensor_affine"),
    Name("torch.serialization", "_get_layout"),
    Name("torch.nn.parameter", "Parameter"),
}
_KNOWN = {*_STORAGES, *_DTYPES, *_TENSOR, _TYPED, *_PARAMETER, _SUBCLASS, _ORDERED, *_OTHERS}


def is_torch(head: bytes) -> bool:
    """Returns whether a file's first bytes may be those of a PyTorch file: of a zip archive or of a pickle."""
    return is_zip(head) or is_pickle(head)


def read_torch(stream: BufferedIOBase, limits: Limits, where: str) -> dict[str, np.ndarray]:
    """Reads all tensors by name.

    Args:
      stream: the file.
      limits: limits on hostile input.
      where: the file, for messages.
    Returns:
      Read-only arrays by name; those that share a storage share memory.
    Raises:
      InvalidModelError: damaged, inconsistent, or another kind of file.
      UnsafeModelError: it names code.
      UnsupportedModelError: a kind of tensor or of archive that is not supported.
      LimitExceededError: a limit was exceeded.
    """
    return (_read_zip if is_zip(head_of(stream)) else _read_stream)(stream, limits, where)


def _read_zip(stream: BufferedIOBase, limits: Limits, where: str) -> dict[str, np.ndarray]:
    archive = ZipArchive(stream, limits, "external_bytes", where)
    entries = archive.by_name
    roots = [name.removesuffix("/data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise InvalidModelError(
            "A PyTorch archive holds one data.pkl", got=f"{len(roots)} among {len(entries)} entries", where=where
        )
    (root,) = roots
    if f"{root}/constants.pkl" in entries:
        raise UnsupportedModelError(
            "A weight file holds tensors", got="a TorchScript program", where=where, fix="export the model to ONNX"
        )

    def content(entry: ZipEntry) -> Bytes:
        if entry.method != zipfile.ZIP_STORED:
            raise UnsupportedModelError(
                "A weight archive's entries are not compressed",
                got=f"`{entry.name}`, compressed",
                where=where,
                fix="a TorchScript program, a Keras model or an app package is no weight file: export to ONNX",
            )
        return archive.read(entry, check_crc=False)  # torch.serialization.set_crc32_options can leave it out

    order = entries.get(f"{root}/byteorder")
    if order is not None and content(order).tobytes() != b"little":
        raise UnsupportedModelError("Tensors are little-endian", got="another byte order", where=where)
    limits.check("header_bytes", entries[f"{root}/data.pkl"].size, where=where)
    pickle = Unpickled(content(entries[f"{root}/data.pkl"]).tobytes(), 0, limits, where)

    def storage(key: str, size: int) -> Bytes:
        entry = entries.get(f"{root}/data/{key}")
        if entry is None or entry.size != size:
            got = "none" if entry is None else f"{entry.size} bytes for {size}"
            raise _invalid("Every storage has its bytes in the archive", got, f"{where}, storage `{key}`")
        return content(entry)

    return _Tensors(storage, limits, where).named(pickle)


def _read_stream(stream: BufferedIOBase, limits: Limits, where: str) -> dict[str, np.ndarray]:
    # the storages come last and are read one by one: no pickle before them is longer than `header_bytes`
    size = size_of(stream)
    head = read_exactly(stream, min(size, limits.header_bytes), where).tobytes()
    parts: list[Unpickled] = []
    for _ in range(5):
        parts.append(Unpickled(head, parts[-1].end if parts else 0, limits, where))
        if parts[0].value != _MAGIC:
            raise UnsafeModelError(
                "A weight file is a state dict saved by torch.save",
                got="another pickle, which could run code",
                where=where,
                fix="save model.state_dict() with torch.save, or the weights as safetensors",
            )
    _, protocol, system, _, keys = (part.value for part in parts)
    if protocol != _PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise UnsupportedModelError("The stream has the known form and byte order", got="another one", where=where)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise _invalid("The storages' keys are strings", type(keys).__name__, where)
    widths = dict(_storage_widths(parts[3], where))
    ranges: dict[str, tuple[int, int]] = {}  # start and size of each storage, in bytes
    position = parts[-1].end
    for key in keys:
        stream.seek(position)
        count = int.from_bytes(stream.read(8), "little", signed=True)
        start, length = position + 8, count * widths.get(key, 0)
        position = start + length
        if key not in widths or key in ranges or count < 0 or position > size:
            raise _invalid("Every storage lies within the file, once", f"{count} elements", f"{where}, storage `{key}`")
        ranges[key] = start, length

    def storage(key: str, size: int) -> Bytes:
        if key not in ranges or ranges[key][1] != size:
            raise _invalid("Every storage has its bytes in the file", f"{size} asked for", f"{where}, storage `{key}`")
        return read_range(stream, ranges[key][0], size, f"{where}, storage `{key}`")

    return _Tensors(storage, limits, where).named(parts[3])


def _storage_widths(pickle: Unpickled, where: str) -> Iterator[tuple[str, int]]:
    """Yields the key and the bytes per element of each storage that a pickle refers to."""
    for reference in pickle.references:
        dtype, key, _, _ = _storage_parts(reference, where)
        yield key, dtype.itemsize


def _storage_parts(reference: Any, where: str) -> tuple[np.dtype[Any], str, int, tuple[int, int] | None]:
    """Returns element type, key, number of elements, and offset and length if only a part of a storage is meant."""
    match getattr(reference, "key", None):
        case ("storage", Name() as kind, str(key), str() | None, int(count), *rest) if kind in _STORAGES:
            match rest:
                case [] | [None]:
                    return _STORAGES[kind], key, count, None
                case [(str(), int(offset), int(length))]:
                    return _STORAGES[kind], key, count, (offset, length)
    raise _invalid("A tensor refers to a storage of a known type", type(reference).__name__, where)


class _Tensors:
    """Makes the arrays that a pickle describes.

    Args:
      storage: (key, size in bytes) -> the bytes of a storage.
      limits: limits on hostile input.
      where: the file, for messages.
    """

    def __init__(self, storage: Callable[[str, int], Bytes], limits: Limits, where: str) -> None:
        self._storage, self._limits, self._where = cache(storage), limits, where
        self._visits = self._bytes = self._repeated = 0

    def named(self, pickle: Unpickled) -> dict[str, np.ndarray]:
        """Returns all tensors of a pickle by name."""
        unknown = sorted(map(str, pickle.names - _KNOWN - _NO_PLAIN_TENSORS.keys()))
        if unknown:
            raise UnsafeModelError(
                "A weight file names nothing but tensors and their storages",
                got=", ".join(unknown[:5]),
                where=self._where,
                fix="if the file is yours, save model.state_dict() alone with torch.save",
            )
        tensors: dict[str, np.ndarray] = {}
        for name, array in self._walk(pickle.value, "", 0):
            if name in tensors:
                raise _invalid("The names of tensors differ", f"`{name}` twice", self._where)
            tensors[name] = array
            self._limits.check("tensors", len(tensors), where=self._where)
        if not tensors:
            raise _invalid("A weight file holds tensors", "none", self._where)
        return tensors

    def _walk(self, value: Any, name: str, depth: int) -> Iterator[tuple[str, np.ndarray]]:
        self._visits += 1  # shared values are visited repeatedly, so a small file may describe a large tree
        self._limits.check("pickle_steps", self._visits, where=self._where)
        self._limits.check("nesting", depth, where=self._where)
        if len(name) > _LONGEST_NAME:
            raise _invalid(f"Names have at most {_LONGEST_NAME} characters", f"{name[:40]}...", self._where)
        if isinstance(value, Call):
            if value.function == _ORDERED:
                pairs = value.arguments[0] if value.arguments else []
                if not isinstance(pairs, list) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
                    raise _invalid("A dictionary is made of pairs", type(pairs).__name__, self._where)
                entries = [*((str(k), v) for k, v in pairs if isinstance(k, str | int)), *(value.items or {}).items()]
                yield from self._walk_all(entries, name, depth)
            elif value.function in _NO_PLAIN_TENSORS:
                got, fix = _NO_PLAIN_TENSORS[value.function]
                where = f"{self._where}, tensor `{name}`"
                raise UnsupportedModelError("A weight file holds dense tensors", got=got, where=where, fix=fix)
            elif value.function not in _OTHERS:
                yield name, self._tensor(value, name, 0)
        elif isinstance(value, dict):
            yield from self._walk_all(list(value.items()), name, depth)
        elif isinstance(value, list | tuple):
            yield from self._walk_all([(str(i), v) for i, v in enumerate(value)], name, depth)

    def _walk_all(self, entries: list[tuple[str, Any]], name: str, depth: int) -> Iterator[tuple[str, np.ndarray]]:
        for key, value in entries:
            yield from self._walk(value, f"{name}.{key}" if name else key, depth + 1)

    def _tensor(self, call: Any, name: str, depth: int) -> np.ndarray:
        where = f"{self._where}, tensor `{name}`"
        self._limits.check("nesting", depth, where=where)
        if isinstance(call, Call):
            match call.arguments:
                case (data, *_) if call.function in _PARAMETER:
                    return self._tensor(data, name, depth + 1)
                case (Name() as inner, _, tuple(arguments), *_) if call.function == _SUBCLASS and inner != _SUBCLASS:
                    return self._tensor(Call(inner, arguments), name, depth + 1)
                case (storage, int(offset), tuple(shape), tuple(strides), _, _, kind, *more) if call.function == _TYPED:
                    return _with_deferred(self._view(storage, kind, offset, shape, strides, where), more, where)
                case (storage, int(offset), tuple(shape), tuple(strides), *more) if call.function in _TENSOR:
                    return _with_deferred(self._view(storage, None, offset, shape, strides, where), more[2:], where)
        raise _invalid("A tensor is made as PyTorch makes one", f"{getattr(call, 'function', type(call))}", where)

    def _view(
        self, storage: Any, kind: Any, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...], where: str
    ) -> np.ndarray:
        dtype, key, count, part = _storage_parts(storage, where)
        numbers = (count, offset, *shape, *strides, *(part or ()))
        if len(shape) != len(strides) or len(shape) > _MAX_RANK or not all(_is_size(n) for n in numbers):
            raise _invalid("Sizes, strides and offsets are whole numbers, none negative", str(shape), where)
        raw = self._storage(key, count * dtype.itemsize)
        if part is not None:
            begin, end = part[0] * dtype.itemsize, (part[0] + part[1]) * dtype.itemsize
            if end > len(raw):
                raise _invalid("A view lies within its storage", f"{part} of {count}", where)
            raw = raw[begin:end]
        if kind is not None:
            if not isinstance(kind, Name) or kind not in _DTYPES:
                raise UnsupportedModelError("A tensor has a known element type", got=str(kind), where=where)
            dtype = _DTYPES[kind]
        available = len(raw) // dtype.itemsize
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        elements = math.prod(n for n in shape if n)
        self._limits.check("tensor_elements", elements, where=where)
        if 0 in shape:
            return np.broadcast_to(np.zeros((), dtype), shape)
        if last >= available:
            raise _invalid("A tensor lies within its storage", f"up to element {last} of {available}", where)
        self._bytes += elements * dtype.itemsize
        self._limits.check("external_bytes", self._bytes, where=where)
        if elements > available:  # a stride of 0 repeats elements
            self._repeated += elements
            self._limits.check("made_elements", self._repeated, where=where)
        flat = raw[: available * dtype.itemsize].view(dtype)[offset:]
        steps = tuple(0 if n == 1 else s * dtype.itemsize for n, s in zip(shape, strides, strict=True))
        return np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False)


def _with_deferred(array: np.ndarray, metadata: Sequence[Any], where: str) -> np.ndarray:
    """Applies the conjugation and negation that PyTorch defers and stores after a tensor's arguments."""
    match list(metadata):
        case [] | [None]:
            return array
        case [dict(flags)] if flags.keys() <= {"conj", "neg"} and not (flags.get("neg") and array.dtype.kind == "b"):
            pass
        case unknown:
            got = ", ".join(", ".join(m) if isinstance(m, dict) else type(m).__name__ for m in unknown)
            raise UnsupportedModelError(
                "A tensor is its elements, conjugated or negated", got=got, where=where, fix="save tensor.clone()"
            )
    if flags.get("conj") and array.dtype.kind == "c":
        array = array.conj()
    if flags.get("neg"):
        array = -array
    array.flags.writeable = False
    return array


def _is_size(n: Any) -> bool:
    return type(n) is int and 0 <= n < 2**63  # `type` and not `isinstance`: True is not a size


def _invalid(rule: str, got: str, where: str) -> InvalidModelError:
    return InvalidModelError(rule, got=got, where=where, fix="save model.state_dict() again with torch.save")
