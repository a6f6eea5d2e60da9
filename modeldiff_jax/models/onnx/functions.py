"""The functions that a model defines: the calls of them, the model's size once they are inlined, their attributes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto

from modeldiff_jax.errors import InvalidModelError, UnsupportedModelError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.onnx.fields import domain, label, text

Key: TypeAlias = tuple[str, str, str]


class Functions:
    """The functions of one model, and the call that is being inlined.

    Attributes:
      versions: domain -> version of its operators, of the model or of the function that is being inlined.
    """

    def __init__(self, proto: ModelProto, versions: Mapping[str, int], limits: Limits, where: str) -> None:
        self.versions, self._limits, self._where = versions, limits, where
        self._table: dict[Key, FunctionProto] = {}
        self._sizes: dict[Key, int] = {}
        self._attributes: Mapping[str, AttributeProto] | None = None  # of the call being inlined; None outside of one
        self._depth = 0
        for function in proto.functions:
            key = domain(function.domain), text(function.name), text(function.overload)
            if key in self._table:
                raise self._invalid("Every function is defined once", "a second one", key[1])
            self._table[key] = function

    def called(self, node: NodeProto) -> FunctionProto | None:
        """Returns the function that a node calls; None if it calls an operator."""
        return self._table.get(_key(node))

    def check(self, nodes: Iterable[NodeProto]) -> None:
        """Raises an error for recursion and for more nodes than the limit, counted before any call is inlined."""
        if self._table:
            self._limits.check("nodes", self._size(nodes, ()), where=self._where)

    def _size(self, nodes: Iterable[NodeProto], outer: tuple[Key, ...]) -> int:
        return sum(self._size_of_node(node, outer) for node in nodes)

    def _size_of_node(self, node: NodeProto, outer: tuple[Key, ...]) -> int:
        graphs = [a.g for a in node.attribute if a.type == AttributeProto.GRAPH]
        size = 1 + sum(self._size(graph.node, outer) for graph in graphs)
        key = _key(node)
        function = self._table.get(key)
        if function is None:
            return size
        if key in outer:
            raise self._invalid("A function does not call itself", f"`{key[1]}` does", label(node))
        self._limits.check("nesting", len(outer) + 1, where=self._where)
        if key not in self._sizes:
            # an Identity for each output; recursion and nesting are checked when a function is first met
            self._sizes[key] = len(function.output) + self._size(function.node, (*outer, key))
        return size + self._sizes[key]

    @contextmanager
    def inlining(self, call: NodeProto, function: FunctionProto) -> Iterator[None]:
        """Makes attributes by reference refer to those of this call, or the function's defaults, within the block."""
        if len(call.input) > len(function.input) or len(call.output) > len(function.output):
            got = f"{len(call.input)} inputs and {len(call.output)} outputs"
            raise self._invalid("A call fits its function", got, label(call))
        attributes = {text(a.name): a for a in function.attribute_proto}
        for attribute in call.attribute:
            value = self.resolved(attribute)
            if value is None:
                continue
            if value.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
                got = f"attribute `{text(attribute.name)}`"
                raise UnsupportedModelError(
                    "A function is given no graphs", got=got, where=f"{self._where}, {label(call)}"
                )
            attributes[text(attribute.name)] = value
        self._depth += 1
        self._limits.check("nesting", self._depth, where=self._where)
        outer = self._attributes, self.versions
        self._attributes = attributes
        # a function may import other versions of operators than its model
        self.versions = {**self.versions, **{domain(entry.domain): entry.version for entry in function.opset_import}}
        yield
        self._attributes, self.versions = outer
        self._depth -= 1

    def resolved(self, attribute: AttributeProto) -> AttributeProto | None:
        """Returns an attribute, or the call's attribute that it refers to; `None` if the call has no such attribute."""
        if not attribute.ref_attr_name:
            return attribute
        if self._attributes is None:
            raise self._invalid("Only functions have attributes by reference", "one elsewhere", text(attribute.name))
        value = self._attributes.get(text(attribute.ref_attr_name))
        if value is None:
            return None
        renamed = AttributeProto()
        renamed.CopyFrom(value)
        renamed.name = attribute.name
        return renamed

    def _invalid(self, rule: str, got: str, name: str) -> InvalidModelError:
        return InvalidModelError(rule, got=got, where=f"{self._where}, `{name}`", fix="export the model again")


def _key(node: NodeProto) -> Key:
    return domain(node.domain), text(node.op_type), text(node.overload)
