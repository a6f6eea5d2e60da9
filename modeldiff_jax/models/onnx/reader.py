"""Reads the bytes of an ONNX model into a `Graph`; every field is hostile until it is checked."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
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
)

from modeldiff_jax.errors import InvalidModelError, UnsupportedModelError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.files import Bytes, HashedStream, size_of
from modeldiff_jax.models.graph.ir import Graph, Node
from modeldiff_jax.models.graph.registry import lookup
from modeldiff_jax.models.onnx.external_data import ExternalData
from modeldiff_jax.models.onnx.fields import domain, text
from modeldiff_jax.models.onnx.fields import label as label_of
from modeldiff_jax.models.onnx.functions import Functions
from modeldiff_jax.models.onnx.initializers import split_initializers
from modeldiff_jax.models.onnx.order import in_order
from modeldiff_jax.models.onnx.registration import ONNX
from modeldiff_jax.models.onnx.tensors import TensorReader
from modeldiff_jax.types import ANY, STRING, Dim, Shape, TensorSpec

_PLACEHOLDERS = frozenset({"", "?", "*", "-1", "any", "dynamic", "none", "null", "unk", "unknown"})


def read_graph(data: bytes, *, folder: Path | None = None, limits: Limits = DEFAULT, where: str = "bytes") -> Graph:
    """Reads and checks an ONNX model in memory.

    Args:
      data: the file's bytes.
      folder: the folder with its external data; `None` refuses external data.
      limits: limits on size, nodes, nesting and tensors.
      where: the file, for messages.
    Raises:
      InvalidModelError: not ONNX, truncated, or inconsistent.
      UnsafeModelError: external data that leaves the folder.
      UnsupportedModelError: a part of ONNX that is not supported.
      LimitExceededError: a limit was exceeded.
    """
    with ExternalData(folder, limits) as external:
        return _graph(io.BytesIO(data), len(data), external, limits, where)


def read_graph_file(
    stream: BufferedIOBase, *, folder: Path, limits: Limits = DEFAULT, where: str = "bytes"
) -> tuple[Graph, str, str]:
    """Reads and checks the file of an ONNX model, and hashes all bytes that are read.

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
    del split  # `proto` holds a copy of the message
    return _Reader(proto, external, limits, where, raw_data).read()


def self_contained(data: bytes, *, folder: Path | None, limits: Limits = DEFAULT, where: str = "bytes") -> bytes:
    """Returns a serialised model with its external data inside, so that another runtime opens no file for it.

    Args:
      data: the file's bytes. folder, limits, where: as for `read_graph`.
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
        reader = TensorReader(files, limits, where)
        limits.check("model_bytes", len(data) + sum(map(reader.size_of, external)), where=where)
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
    """Yields every tensor in a message and in the messages nested in it."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in [value] if isinstance(value, Message) else value:
                if isinstance(inner, TensorProto):
                    yield inner
                yield from _tensors(inner)


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
        self.raw_data, self.tensors = raw_data, TensorReader(external, limits, where)
        self.versions = {domain(entry.domain): entry.version for entry in proto.opset_import}
        self.constants: dict[str, np.ndarray] = {}
        self.used_names: set[str] = set()
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
        """Reads one graph. Names in each nested graph get another prefix, so that all names differ."""
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
            while unique in self.used_names:  # a file may contain the name `1/x`
                unique = "_" + unique
            self.used_names.add(unique)
            names[name] = unique
            return unique

        if proto.sparse_initializer:
            raise UnsupportedModelError("Weights must be dense", got="sparse initializers", where=self.where)
        for i, tensor in enumerate(proto.initializer):
            raw = None if depth else self.raw_data.get(i)
            self.constants[define(tensor.name)] = self.tensors.read(tensor, text(tensor.name), raw)
        initialised = frozenset(defined)  # before IR 4 every initializer was listed as an input too
        inputs = tuple(self.spec(v, define(v.name)) for v in proto.input if text(v.name) not in initialised)
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
        """Reads nodes in the order they run, calls of functions inlined; Constant nodes become constants."""
        nodes: list[Node] = []
        self.limits.check("nodes", self.n_nodes + len(protos), where=self.where)
        for proto in in_order(protos, self.where):
            self.n_nodes += 1
            self.limits.check("nodes", self.n_nodes, where=self.where)
            function = self.functions.called(proto)
            if function is not None:
                nodes += self.inlined(function, proto, names, define, depth)
            elif proto.op_type == "Constant" and domain(proto.domain) == ONNX and len(proto.output) == 1:
                self.constants[define(proto.output[0])] = self.constant(proto)
            else:
                nodes.append(self.node(proto, names, define, depth))
        return nodes

    def inlined(
        self,
        function: FunctionProto,
        call: NodeProto,
        names: Mapping[str, str],
        define: Callable[[str | bytes], str],
        depth: int,
    ) -> list[Node]:
        """Returns the nodes of a function that read the inputs and attributes of a call and write its outputs."""
        label = label_of(call)
        inner = {text(name): "" for name in function.input}
        for name, value in zip(function.input, call.input, strict=False):
            if value and text(value) not in names:
                raise self.invalid(
                    "A node reads values that are computed before it", f"`{text(value)}`, which is not", label
                )
            inner[text(name)] = names[text(value)] if value else ""
        self.n_scopes += 1
        prefix = f"{self.n_scopes}:"

        def define_inner(name: str | bytes) -> str:
            if text(name) in inner:
                raise self.invalid("Every name is defined once", f"`{text(name)}` twice", label)
            unique = prefix + text(name)
            while unique in self.used_names:
                unique = "_" + unique
            self.used_names.add(unique)
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
        read_names = tuple(map(text, proto.input))
        for name in read_names:
            if name and name not in names:
                raise self.invalid("A node reads values that are computed before it", f"`{name}`, which is not", label)
        inputs = tuple(names[name] if name else "" for name in read_names)
        keys = [text(a.name) for a in proto.attribute]
        if len(set(keys)) < len(keys):
            raise self.invalid("A node has each attribute once", ", ".join(keys), label)
        resolved = {key: self.functions.resolved(a) for key, a in zip(keys, proto.attribute, strict=True)}
        attributes = {k: self.attribute(a, names, label, depth) for k, a in resolved.items() if a is not None}
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
        node = Node(text(proto.op_type), dialect, version, text(proto.name), inputs, outputs, attributes)
        in_model = self.versions.get(dialect, version)
        if version != in_model and not _same_definition(node, in_model):
            raise UnsupportedModelError(
                "A function of a model may import another operator set if that defines the function's operators alike",
                got=f"{dialect}.{node.op} of opset {version} in a function, of a model of opset {in_model}",
                where=f"{self.where}, `{label}`",
                fix="bring it to one version: onnx.inliner.inline_local_functions(model, convert_version=True)",
            )
        return node

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
                return self.tensors.read(proto.t, f"{label}, attribute {proto.name}")
            case kind.GRAPH:
                return self.graph(proto.g, names, depth + 1)
            case kind.TYPE_PROTO:  # of an absent optional; other values need no declared type
                return proto.tp.WhichOneof("value")
        raise UnsupportedModelError(
            "Attributes are numbers, strings, tensors or graphs",
            got=f"attribute `{proto.name}` of type {_kind(proto)}",
            where=f"{self.where}, node {label}",
        )

    def constant(self, node: NodeProto) -> np.ndarray:
        """Returns the value of a Constant node, which one of several attributes holds."""
        label = label_of(node)
        values = [value for a in node.attribute if (value := self.functions.resolved(a)) is not None]
        if len(values) != 1:
            raise self.invalid("A Constant has one value", f"{len(values)} attributes", label)
        (attribute,) = values
        value = self.attribute(attribute, {}, label, depth=0)
        kind = AttributeProto.AttributeType
        match attribute.name, attribute.type:
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
            got=f"attribute `{attribute.name}` of type {_kind(attribute)}",
            where=f"{self.where}, node {label}",
        )

    def spec(self, proto: ValueInfoProto, name: str) -> TensorSpec:
        if not proto.type.HasField("tensor_type"):
            # inside nested graphs types may be left out, and sequences only pass through
            return TensorSpec(name, (), np.dtype(object))
        tensor = proto.type.tensor_type
        shape: Shape = tuple(d.dim_value if d.dim_value > 0 else _size_name(d.dim_param) for d in tensor.shape.dim)
        if tensor.elem_type == TensorProto.STRING:
            return TensorSpec(name, shape, STRING)
        dtype = np.dtype(object) if tensor.elem_type == 0 else self.tensors.dtype(tensor.elem_type, name)
        return TensorSpec(name, shape, dtype)

    def invalid(self, rule: str, got: str, label: str) -> InvalidModelError:
        return InvalidModelError(rule, got=got, where=f"{self.where}, `{label}`", fix="export the model again")


def _same_definition(node: Node, version: int) -> bool:
    """Returns whether a node's operator is defined alike in another version; `fold` refuses unknown operators."""
    try:
        function = lookup(node).function
    except UnsupportedModelError:
        return True
    try:
        return function is lookup(replace(node, version=version)).function
    except UnsupportedModelError:
        return False


def _size_name(given: str | bytes) -> Dim:
    """Returns the name of a dynamic size; words that exporters write for an unknown one count as no name."""
    name = text(given)
    return ANY if name.lower() in _PLACEHOLDERS else name


def _kind(attribute: AttributeProto) -> str:
    kind = AttributeProto.AttributeType
    return str(kind.Name(attribute.type)) if attribute.type in kind.values() else str(attribute.type)
