"""Hashes the part of a graph that tracing sees: operators, attributes, versions, static constants and specs.

Graphs of equal digests are one program, whatever their weights. Names of nodes are left out: only messages use them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from modeldiff_jax.models.graph.ir import Graph
from modeldiff_jax.types import ANY, Dim, TensorSpec

Label = Callable[[Hashable], Hashable]
"""name -> the label that is hashed in its place."""


def digest(graph: Graph, label: Label = lambda name: name) -> str:
    """Returns the SHA-256 of a graph in hexadecimal digits.

    Args:
      graph: folded, so that its constants are those that stay part of the program.
      label: name -> the label to hash in its place. With the numbers of `numbered`, graphs that differ in names only
        have one digest.
    """
    sha256 = hashlib.sha256()

    def add_bytes(data: bytes) -> None:  # with their length, so that no two graphs give one stream of bytes
        sha256.update(len(data).to_bytes(8, "little"))
        sha256.update(data)

    def text(value: Any) -> None:
        add_bytes(repr(value).encode())

    def dim(size: Dim) -> Hashable:
        return size if isinstance(size, int) or size == ANY else label(("size", size))

    def spec(value: TensorSpec) -> tuple[Any, ...]:
        return label(value.name), value.dtype.str, value.dtype.name, tuple(map(dim, value.shape))

    def add(value: Any) -> None:
        if isinstance(value, np.ndarray):
            text((value.dtype.str, value.dtype.name, value.shape))
            add_bytes(repr(value.tolist()).encode() if value.dtype == object else value.tobytes())
        elif isinstance(value, Graph):
            text([spec(s) for s in value.inputs])
            text([spec(s) for s in value.outputs])
            text(len(value.nodes))
            for node in value.nodes:
                text(
                    (
                        node.op,
                        node.domain,
                        node.version,
                        *(tuple(map(label, names)) for names in (node.inputs, node.outputs)),
                    )
                )
                text(len(node.attributes))
                for name in sorted(node.attributes):
                    text(name)
                    add(node.attributes[name])
            text(len(value.constants))
            for name in sorted(value.constants, key=lambda name: repr(label(name))):
                text(label(name))
                add(value.constants[name])
        else:
            text(value)

    add(graph)
    return sha256.hexdigest()


class Numbers(dict[Hashable, int]):
    """A dictionary that numbers names in order of first use."""

    def __missing__(self, name: Hashable) -> int:
        self[name] = len(self)
        return self[name]


def numbered(graph: Graph) -> tuple[str, Numbers]:
    """Returns the digest of a graph, independent of its names, and the number of each name in it."""
    numbers = Numbers({"": 0})
    return digest(graph, numbers.__getitem__), numbers
