"""String fields of an ONNX file, none of which need be UTF-8."""

from __future__ import annotations

from onnx import NodeProto

from modeldiff_jax.models.onnx.registration import ONNX


def text(value: str | bytes) -> str:
    """A string field as text: protobuf hands out bytes where it is not UTF-8."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def domain(name: str | bytes) -> str:
    """Returns an operator domain; the empty string stands for `ai.onnx`."""
    return text(name) or ONNX


def label(node: NodeProto) -> str:
    """What messages call a node."""
    return text(node.name) or f"{text(node.op_type)} -> {', '.join(map(text, node.output))}"
