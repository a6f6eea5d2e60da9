"""Reads ONNX bytes into a `Graph`; every field read here is hostile until checked."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BufferedIOBase
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    numpy_helper,
)

from modeldiff_jax.errors import InvalidModelError, UnsupportedModelError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.files import Bytes, HashedStream, size_of
from modeldiff_jax.models.graph.ir import Graph, Node
from modeldiff_jax.models.onnx.external_data import ExternalData
from modeldiff_jax.models.onnx.fields import domain, text
from modeldiff_jax.models.onnx.fields import label as label_of
from modeldiff_jax.models.onnx.functions import Functions
from modeldiff_jax.models.onnx.initializers import split_initializers
from modeldiff_jax.models.onnx.order import in_order
from modeldiff_jax.models.onnx.registration import ONNX
from modeldiff_jax.types import ANY, Shape, TensorSpec

_MAX_RANK = 64  # numpy's
_PACKED_BITS: dict[int, int] = {
    TensorProto.UINT4: 4,
    TensorProto.INT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    TensorProto.UINT2: 2,
    TensorProto.INT2: 2,
}


def read_graph(data: bytes, *, folder: Path | None = None, limits: Limits = DEFAULT, where: str = "bytes") -> Graph:
    """Reads and checks an ONNX model in memory.

    Args:
      data: the file's bytes.
      folder: where its external data may lie; `None` refuses external data.
      limits: bounds on size, nodes, nesting and tensors.
      where: the file, for messages.
    Raises:
      InvalidModelError: not ONNX, truncated, or inconsistent.
      UnsafeModelError: external data that leaves the folder.
      UnsupportedModelError: a part of ONNX we do not have.
      LimitExceededError: a bound was hit.
    """
    with ExternalData(folder, limits) as external:
        return _graph(io.BytesIO(data), len(data), external, limits, where)


def read_graph_file(
    stream: BufferedIOBase, *, folder: Path, limits: Limits = DEFAULT, where: str = "bytes"
) -> tuple[Graph, str, str]:
    """Reads and checks an ONNX model's file, and hashes all that is read.

    Args:
      stream: the file, at its start.
      folder, limits, where: as for `read_graph`.
    Returns:
      The graph, the SHA-256 of the file, and that of the file and the external data, as `Origin` defines them.
    Raises:
      ModelDiffError: as `read_graph` does.
    """
    size = size_of(stream)
    hashed = HashedStream(stream)
    with ExternalData(folder, limits) as external:
        graph = _graph(hashed, size, external, limits, where)
        file_sha256 = hashed.sha256()
        return graph, file_sha256, external.content_sha256(file_sha256)


def _graph(stream: BufferedIOBase, size: int, external: ExternalData, limits: Limits, where: str) -> Graph:
    limits.check("model_bytes", size, where=where)
    split = split_initializers(stream, size, where)
    proto = _parse(split.message, where)
    raw_data = split.raw_data
    del split  # the message holds a copy
    return _Reader(proto, external, limits, where, raw_data).read()


def self_contained(data: bytes, *, folder: Path | None, limits: Limits = DEFAULT, where: str = "bytes") -> bytes:
    """The same model with its external data moved inside, so that another runtime opens no file for it.

    Args:
      data: the file's bytes. folder: where its external data may lie. limits, where: as for `read_graph`.
    Raises:
      UnsafeModelError: external data that leaves the folder.
      LimitExceededError: the whole does not fit into one file.
    """
    limits.check("model_bytes", len(data), where=where)
    proto = _parse(data, where)
    external = [t for t in _tensors(proto) if t.data_location == TensorProto.EXTERNAL]
    if not external:
        return data
    with ExternalData(folder, limits) as files:
        reader = _Reader(proto, files, limits, where)
        limits.check("model_bytes", len(data) + sum(map(reader.bytes_of, external)), where=where)
        for tensor in external:
            raw = reader.external_bytes(tensor, tensor.name)
            for field in ("external_data", "data_location"):
                tensor.ClearField(field)
            tensor.raw_data = raw.tobytes()
    return bytes(proto.SerializeToString())


def _parse(data: bytes, where: str) -> ModelProto:
    if not data:
        raise InvalidModelError("A model file must hold a model", got="an empty file", where=where)
    try:
        return onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise InvalidModelError(
            "A model file must be a whole ONNX file",
            got="bytes that do not parse as one",
            where=where,
            fix="check that the file is ONNX and was copied whole",
        ) from error


def _tensors(message: Message) -> Iterator[TensorProto]:
    """Every tensor anywhere in a message."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in [value] if isinstance(value, Message) else value:
                if isinstance(part, TensorProto):
                    yield part
                yield from _tensors(part)


class _Reader:
    def __init__(
        self,
        proto: ModelProto,
        external: ExternalData,
        limits: Limits,
        where: str,
        raw_data: Mapping[int, Bytes] = MappingProxyType({}),
    ) -> None:
        self.proto, self.limits, self.where = proto, limits, where
        self.raw_data, self.external = raw_data, external
        self.versions = {domain(entry.domain): entry.version for entry in proto.opset_import}
        self.constants: dict[str, np.ndarray] = {}
        self.taken: set[str] = set()
        self.functions = Functions(proto, self.versions, limits, where)
        self.n_nodes = 0
        self.n_scopes = 0

    def read(self) -> Graph:
        if not self.proto.HasField("graph") or not self.versions or not self.proto.graph.output:
            raise InvalidModelError(
                "An ONNX model has a graph with outputs and imports an operator set",
                got="a file without them",
                where=self.where,
                fix="check that the file is ONNX and was copied whole",
            )
        self.functions.check(self.proto.graph.node)
        return self.graph(self.proto.graph, {}, depth=0)

    def graph(self, proto: GraphProto, outer: Mapping[str, str], depth: int) -> Graph:
        """Reads one graph. Names in nested graphs get a prefix of their own, so that all names differ."""
        self.limits.check("nesting", depth, where=self.where)
        prefix = f"{self.n_scopes}/" if depth else ""
        self.n_scopes += 1
        label = text(proto.name)
        names = dict(outer)
        defined: set[str] = set()

        def define(name: str | bytes) -> str:
            name = text(name)
            if name in defined or not name:
                raise self.invalid("Every name is defined once", f"`{name}` twice" if name else "no name", label)
            defined.add(name)
            unique = prefix + name
            while unique in self.taken:  # a file may contain `1/x` itself
                unique = "_" + unique
            self.taken.add(unique)
            names[name] = unique
            return unique

        if proto.sparse_initializer:
            raise UnsupportedModelError("Weights must be dense", got="sparse initializers", where=self.where)
        for i, tensor in enumerate(proto.initializer):
            raw = None if depth else self.raw_data.get(i)
            self.constants[define(tensor.name)] = self.tensor(tensor, text(tensor.name), raw)
        held = frozenset(defined)  # before IR 4 every initializer was listed as an input too
        inputs = tuple(self.spec(v, define(v.name)) for v in proto.input if text(v.name) not in held)
        for value in proto.input:
            if depth == 0 and value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
                raise UnsupportedModelError(
                    "Every input has a known number of axes",
                    got=f"input `{value.name}` without a shape",
                    where=self.where,
                    fix="export the model again with shapes, dynamic ones included",
                )
        nodes = self.nodes(proto.node, names, define, depth)
        for value in proto.output:
            if text(value.name) not in names:
                raise self.invalid("Every output is computed by the graph", f"output `{value.name}` is not", label)
        outputs = tuple(self.spec(v, names[text(v.name)]) for v in proto.output)
        return Graph(label, tuple(nodes), inputs, outputs, self.versions, self.constants if depth == 0 else {})

    def nodes(
        self, protos: Sequence[NodeProto], names: Mapping[str, str], define: Callable[[str | bytes], str], depth: int
    ) -> list[Node]:
        """Reads nodes in the order they run, those of functions in place of their calls, and sets Constants aside."""
        found: list[Node] = []
        self.limits.check("nodes", self.n_nodes + len(protos), where=self.where)
        for proto in in_order(protos, self.where):
            self.n_nodes += 1
            self.limits.check("nodes", self.n_nodes, where=self.where)
            function = self.functions.called(proto)
            if function is not None:
                found += self.inlined(function, proto, names, define, depth)
            elif proto.op_type == "Constant" and domain(proto.domain) == ONNX and len(proto.output) == 1:
                self.constants[define(proto.output[0])] = self.constant(proto)
            else:
                found.append(self.node(proto, names, define, depth))
        return found

    def inlined(
        self,
        function: FunctionProto,
        call: NodeProto,
        names: Mapping[str, str],
        define: Callable[[str | bytes], str],
        depth: int,
    ) -> list[Node]:
        """The nodes of a function, which reads its call's inputs and attributes and writes its outputs."""
        label = label_of(call)
        inner = {text(name): "" for name in function.input}
        for name, value in zip(function.input, call.input, strict=False):
            if value and text(value) not in names:
                raise self.invalid("A node reads what was computed before it", f"`{text(value)}`, which is not", label)
            inner[text(name)] = names[text(value)] if value else ""
        self.n_scopes += 1
        prefix = f"{self.n_scopes}:"

        def define_inner(name: str | bytes) -> str:
            if text(name) in inner:
                raise self.invalid("Every name is defined once", f"`{text(name)}` twice", label)
            unique = prefix + text(name)
            while unique in self.taken:
                unique = "_" + unique
            self.taken.add(unique)
            inner[text(name)] = unique
            return unique

        with self.functions.inlining(call, function):
            nodes = self.nodes(function.node, inner, define_inner, depth)
        for name, written in zip(function.output, call.output, strict=False):
            if not inner.get(text(name)):
                raise self.invalid("A function computes its outputs", f"`{text(name)}` is not", label)
            if written:
                nodes.append(Node("Identity", ONNX, 1, label, (inner[text(name)],), (define(written),)))
        return nodes

    def node(self, proto: NodeProto, names: Mapping[str, str], define: Any, depth: int) -> Node:
        label = label_of(proto)
        reads = tuple(map(text, proto.input))
        for name in reads:
            if name and name not in names:
                raise self.invalid("A node reads what was computed before it", f"`{name}`, which is not", label)
        inputs = tuple(names[name] if name else "" for name in reads)
        keys = [text(a.name) for a in proto.attribute]
        if len(set(keys)) < len(keys):
            raise self.invalid("A node has each attribute once", ", ".join(keys), label)
        found = {key: self.functions.resolved(a) for key, a in zip(keys, proto.attribute, strict=True)}
        attributes = {k: self.attribute(a, names, label, depth) for k, a in found.items() if a is not None}
        outputs = tuple(define(name) if name else "" for name in proto.output)
        dialect = domain(proto.domain)
        version = self.functions.versions.get(dialect)
        if version is None:
            raise UnsupportedModelError(
                "A model imports the operator set of every domain it uses",
                got=f"domain {dialect} without a version",
                where=f"{self.where}, `{label}`",
                fix="add it to the model's opset imports",
            )
        return Node(text(proto.op_type), dialect, version, text(proto.name), inputs, outputs, attributes)

    def attribute(self, proto: AttributeProto, names: Mapping[str, str], label: str, depth: int) -> Any:
        kind = AttributeProto.AttributeType
        match proto.type:
            case kind.FLOAT:
                return proto.f
            case kind.INT:
                return proto.i
            case kind.STRING:
                return text(proto.s)
            case kind.FLOATS:
                return tuple(proto.floats)
            case kind.INTS:
                return tuple(proto.ints)
            case kind.STRINGS:
                return tuple(map(text, proto.strings))
            case kind.TENSOR:
                return self.tensor(proto.t, f"{label}, attribute {proto.name}")
            case kind.GRAPH:
                return self.graph(proto.g, names, depth + 1)
            case kind.TYPE_PROTO:  # of an absent optional: values know their types themselves
                return proto.tp.WhichOneof("value")
        raise UnsupportedModelError(
            "Attributes are numbers, strings, tensors or graphs",
            got=f"attribute `{proto.name}` of type {_kind(proto)}",
            where=f"{self.where}, node {label}",
        )

    def constant(self, node: NodeProto) -> np.ndarray:
        """The value of a Constant node, in whichever of its attributes it stands."""
        label = label_of(node)
        held = [found for a in node.attribute if (found := self.functions.resolved(a)) is not None]
        if len(held) != 1:
            raise self.invalid("A Constant has one value", f"{len(held)} attributes", label)
        value = self.attribute(held[0], {}, label, depth=0)
        kind = AttributeProto.AttributeType
        match held[0].name, held[0].type:
            case "value", kind.TENSOR:
                return np.asarray(value)
            case ("value_float", kind.FLOAT) | ("value_floats", kind.FLOATS):
                return np.asarray(value, np.float32)
            case ("value_int", kind.INT) | ("value_ints", kind.INTS):
                return np.asarray(value, np.int64)
            case ("value_string", kind.STRING) | ("value_strings", kind.STRINGS):
                return np.asarray(value, object)
        raise UnsupportedModelError(
            "A Constant holds a dense tensor, numbers or strings",
            got=f"attribute `{held[0].name}` of type {_kind(held[0])}",
            where=f"{self.where}, node {label}",
        )

    def tensor(self, proto: TensorProto, label: str, raw: Bytes | None = None) -> np.ndarray:
        """A tensor's values, after its shape, type and byte count have been checked against each other.

        `raw` is its raw data where that was cut out.
        """
        shape = tuple(proto.dims)
        if any(dim < 0 for dim in shape) or len(shape) > _MAX_RANK:
            raise self.invalid(f"A tensor has at most {_MAX_RANK} sizes, none negative", f"shape {shape}", label)
        # Zeros aside: numpy refuses an empty array whose other sizes are too large
        elements = math.prod(dim for dim in shape if dim)
        self.limits.check("tensor_elements", elements, where=f"{self.where}, tensor `{label}`")
        if proto.data_location == TensorProto.EXTERNAL:
            if proto.data_type == TensorProto.STRING:
                raise self.invalid("Strings are stored in the model itself", "external strings", label)
            return self.from_bytes(proto, shape, label, self.external_bytes(proto, label))
        if proto.data_type == TensorProto.STRING:
            if len(proto.string_data) != math.prod(shape):
                got = f"{len(proto.string_data)} strings for {shape}"
                raise self.invalid("A tensor's data fill its shape", got, label)
            return np.array([text(s) for s in proto.string_data], object).reshape(shape)
        dtype, size = self.dtype(proto.data_type, label), self.bytes_of(proto)
        held = raw if raw is not None else proto.raw_data if proto.HasField("raw_data") else None
        if held is not None and len(held) != size:
            got = f"{len(held)} bytes for {shape} of {dtype.name} ({size} bytes)"
            raise self.invalid("A tensor's data fill its shape", got, label)
        if raw is not None:
            return self.from_bytes(proto, shape, label, raw)
        try:
            return np.asarray(numpy_helper.to_array(proto)).reshape(shape)
        except (ValueError, TypeError, OverflowError) as error:
            raise self.invalid("A tensor's data fill its shape", str(error).splitlines()[0], label) from error

    def from_bytes(self, proto: TensorProto, shape: tuple[int, ...], label: str, raw: Bytes) -> np.ndarray:
        """A tensor whose data lie outside of its message."""
        dtype = self.dtype(proto.data_type, label)
        if proto.data_type not in _PACKED_BITS:
            return raw.view(dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)
        whole = TensorProto(dims=shape, data_type=proto.data_type, raw_data=raw.tobytes())
        return np.asarray(numpy_helper.to_array(whole))

    def bytes_of(self, proto: TensorProto) -> int:
        """How many bytes a tensor's shape and type need."""
        bits = _PACKED_BITS.get(proto.data_type) or 8 * self.dtype(proto.data_type, proto.name).itemsize
        return (math.prod(proto.dims) * bits + 7) // 8

    def external_bytes(self, proto: TensorProto, label: str) -> Bytes:
        """A tensor's bytes out of the file it names."""
        entries = {text(entry.key): text(entry.value) for entry in proto.external_data}
        return self.external.read(entries, self.bytes_of(proto), f"{self.where}, tensor `{label}`")

    def spec(self, proto: ValueInfoProto, name: str) -> TensorSpec:
        if not proto.type.HasField("tensor_type"):
            # inside nested graphs types may be left out, and sequences only pass through
            return TensorSpec(name, (), np.dtype(object))
        tensor = proto.type.tensor_type
        shape: Shape = tuple(d.dim_value if d.dim_value > 0 else text(d.dim_param) or ANY for d in tensor.shape.dim)
        dtype = np.dtype(object) if tensor.elem_type == 0 else self.dtype(tensor.elem_type, name)
        return TensorSpec(name, shape, dtype)

    def dtype(self, data_type: int, label: str) -> np.dtype[Any]:
        try:
            return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type))
        except (KeyError, ValueError, TypeError) as error:
            raise self.invalid("A tensor has a known element type", f"type {data_type}", label) from error

    def invalid(self, rule: str, got: str, label: str) -> InvalidModelError:
        return InvalidModelError(rule, got=got, where=f"{self.where}, `{label}`", fix="export the model again")


def _kind(attribute: AttributeProto) -> str:
    kind = AttributeProto.AttributeType
    return str(kind.Name(attribute.type)) if attribute.type in kind.values() else str(attribute.type)
