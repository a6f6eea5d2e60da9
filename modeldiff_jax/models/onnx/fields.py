"""Reads string fields of an ONNX file, which need not be UTF-8."""

from __future__ import annotations

from onnx import NodeProto

from modeldiff_jax.models.onnx.registration import ONNX


def text(value: str | bytes) -> str:
    """Returns a string field as text; protobuf returns bytes if it is not UTF-8."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def domain(name: str | bytes) -> str:
    """Returns an operator domain; the empty string means `ai.onnx`."""
    return text(name) or ONNX


def label(node: NodeProto) -> str:
    """Returns the name of a node for messages."""
    return text(node.name) or f"{text(node.op_type)} -> {', '.join(map(text, node.output))}"
