"""Files with nodes in any order, as onnxruntime accepts and its quantiser writes them."""

import itertools

import numpy as np
import pytest
from onnx import TensorProto

from modeldiff_jax.errors import InvalidModelError, LimitExceededError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.onnx.reader import read_graph
from tests.helpers.onnx_graphs import branch, model, node, value
from tests.models.onnx.helpers import assert_same, convert, expected

X = np.float32([-1, 2])
LATE = branch([node("Neg", "z", "c")], "c")
NOTHING = branch([], "x")
CHAIN = [node("Constant", "", "c", value_float=3.0), node("Mul", "x c", "a"), node("Relu", "a", "b")]
CHAIN += [node("Add", "a b", "y")]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_any_order_gives_the_same_graph(order):
    proto = model([CHAIN[i] for i in order], [value("x", (2,))])
    assert [n.op for n in read_graph(proto.SerializeToString()).nodes] == ["Mul", "Relu", "Add"]


def test_nodes_in_order_keep_it():
    nodes = [node("Relu", "x", "b"), node("Neg", "x", "a"), node("Add", "b a", "y")]
    assert [n.op for n in read_graph(model(nodes).SerializeToString()).nodes] == ["Relu", "Neg", "Add"]


def choice():
    """y = x < 0 ? -(x + x) : x + x by nested graphs that read what is computed behind them; one has a name of its own
    for what the outer graph calls otherwise."""
    then = branch([node("Neg", "late", "t")], "t", "then")
    other = branch([node("Identity", "own", "e"), node("Identity", "late", "own")], "e", "else")
    nodes = [
        node("If", "below", "y", then_branch=then, else_branch=other),
        node("Add", "x x", "late"),
        node("ReduceMax", "x", "top", keepdims=0),
        node("Less", "top zero", "below"),
        node("Constant", "", "zero", value_float=0.0),
        node("Identity", "y", "own_of_outer"),
    ]
    return model(nodes, [value("x", (2,))])


@pytest.mark.parametrize("x", [X, X - 5])
def test_nested_graphs_read_what_stands_behind_them(x):
    output = convert(choice())
    assert_same(output.apply(output.params, x), [-2 * x if x.max() < 0 else 2 * x])


def test_onnxruntime_takes_them_too():
    proto = model(CHAIN[::-1], [value("x", (2,))])
    output = convert(proto)
    assert_same(output.apply(output.params, X), expected(proto, {"x": X}))


def test_a_name_of_a_nested_graph_makes_nobody_wait():
    inner = branch([node("Identity", "x", "y")], "y", "shadow")  # its own y, not the outer one
    proto = model(
        [node("If", "t", "y", then_branch=inner, else_branch=inner), node("Not", "f", "t")],
        [value("x"), value("f", (), TensorProto.BOOL)],
    )
    assert [n.op for n in read_graph(proto.SerializeToString()).nodes] == ["Not", "If"]


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Add", "x y", "y")],
        [node("Add", "x b", "a"), node("Neg", "a", "b"), node("Relu", "b", "y")],
        [
            node("If", "t", "y", then_branch=branch([node("Neg", "z", "c")], "c"), else_branch=NOTHING),
            node("Relu", "y", "z"),
        ],
    ],
    ids=["itself", "each other", "by way of a nested graph"],
)
def test_nodes_that_wait_for_one_another_are_refused(nodes):
    proto = model(nodes, [value("x"), value("t", (), TensorProto.BOOL)])
    with pytest.raises(InvalidModelError, match="form no cycle"):
        read_graph(proto.SerializeToString())


def reversed_chain(n, closed=False):
    names = ["y", *(f"v{i}" for i in range(n - 1)), "y" if closed else "x"]
    return model([node("Neg", after, before) for before, after in itertools.pairwise(names)])


def test_a_long_chain_backwards():
    graph = read_graph(reversed_chain(20_000).SerializeToString())
    assert (graph.nodes[0].inputs, graph.nodes[-1].outputs) == (("x",), ("y",))


def test_a_long_cycle_is_refused_in_few_words():
    with pytest.raises(InvalidModelError, match="form no cycle") as caught:
        read_graph(reversed_chain(20_000, closed=True).SerializeToString())
    assert len(str(caught.value)) < 500


def test_nodes_are_counted_before_they_are_sorted():
    with pytest.raises(LimitExceededError, match="nodes"):
        read_graph(reversed_chain(50, closed=True).SerializeToString(), limits=Limits(nodes=40))
