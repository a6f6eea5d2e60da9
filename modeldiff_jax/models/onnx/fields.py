"""String fields of an ONNX file, none of which need be UTF-8."""

from __future__ import annotations

from onnx import NodeProto


def text(value: str | bytes) -> str:
    """A string field as text: protobuf hands out bytes where it is not UTF-8."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def domain(name: str | bytes) -> str:
    """An operator domain; `ai.onnx` and the empty string are the same one."""
    return "" if name == "ai.onnx" else text(name)


def label(node: NodeProto) -> str:
    """What messages call a node."""
    return text(node.name) or f"{text(node.op_type)} -> {', '.join(map(text, node.output))}"
