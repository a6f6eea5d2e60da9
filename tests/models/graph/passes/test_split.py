"""The two parts of a graph give the outputs of the whole."""

import numpy as np
import pytest

from modeldiff_jax.models.graph.passes.split import split
from modeldiff_jax.models.graph.trace import run
from modeldiff_jax.models.onnx import read_graph
from tests.helpers.onnx_graphs import model, node, value

A, B = np.float32([1, -2, 3]), np.float32([4, 5, -6])
GRAPH = read_graph(
    model(
        [
            node("Relu", "a", "p"),
            node("Add", "p b", "q"),
            node("Neg", "a", "r"),
            node("Mul", "q r", "y"),
            node("Abs", "p", "z"),
        ],
        inputs=[value("a", (3,)), value("b", (3,))],
        outputs=[value("y", (3,)), value("z", (3,)), value("a", (3,))],
    ).SerializeToString()
)


@pytest.mark.parametrize(
    "names", [set(), {"a"}, {"b"}, {"a", "b"}], ids=lambda names: " and ".join(sorted(names)) or "none"
)
def test_two_parts_are_the_whole(names):
    given = {"a": A, "b": B}
    parts = split(GRAPH, frozenset(names))
    first = run(parts.first, {name: given[name] for name in names})
    passed = dict(zip((spec.name for spec in parts.second.inputs), first[: parts.n_passed], strict=False))
    rest = {name: array for name, array in given.items() if name not in names}
    result = dict(zip(parts.done, first[parts.n_passed :], strict=True))
    result |= zip((spec.name for spec in parts.second.outputs), run(parts.second, {**passed, **rest}), strict=True)
    for spec, want in zip(GRAPH.outputs, run(GRAPH, given), strict=True):
        np.testing.assert_array_equal(result[spec.name], want)


def test_each_node_is_in_one_part():
    parts = split(GRAPH, frozenset({"a"}))
    assert [node.op for node in parts.first.nodes] == ["Relu", "Neg", "Abs"]
    assert [node.op for node in parts.second.nodes] == ["Add", "Mul"]
    assert [spec.name for spec in parts.second.inputs] == ["p", "r", "b"]
    assert parts.done == ("z", "a")
