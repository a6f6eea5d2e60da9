"""The bytes of live values against a count by definition, and the limit on them."""

import time

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from modeldiff_jax.errors import LimitExceededError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.load import load
from tests.helpers.onnx_graphs import branch, model, node, tensor, value

BOOL, INT64 = TensorProto.BOOL, TensorProto.INT64
X = np.float32([1, 2, 3])


@st.composite
def graphs(draw):
    """Concatenations of earlier values, some of which are outputs: the inputs and output of each node, the outputs."""
    names, nodes = ["x"], []
    for i in range(draw(st.integers(1, 8))):
        nodes.append((draw(st.lists(st.sampled_from(names), min_size=1, max_size=3)), f"v{i}"))
        names.append(f"v{i}")
    return nodes, draw(st.lists(st.sampled_from(names[1:]), min_size=1, max_size=4, unique=True))


def peak_by_definition(nodes, outputs):
    """The most bytes that are computed and still to be read, over all nodes, one of which is running."""
    size = {"x": X.nbytes}
    for reads, name in nodes:
        size[name] = sum(size[read] for read in reads)
    return max(
        sum(
            size[name]
            for made, (_, name) in enumerate(nodes[: now + 1])
            if made == now or name in outputs or any(name in reads for reads, _ in nodes[now:])
        )
        for now in range(len(nodes))
    )


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graph=graphs())
def test_the_limit_is_the_count_by_definition(tmp_path, graph):
    nodes, outputs = graph
    file = tmp_path / "m.onnx"
    concats = [helper.make_node("Concat", reads, [name], axis=0) for reads, name in nodes]
    file.write_bytes(model(concats, outputs=[value(name) for name in outputs]).SerializeToString())
    peak = peak_by_definition(nodes, outputs)
    refused = load(file, limits=Limits(live_bytes=peak - 1))
    with pytest.raises(LimitExceededError, match="live_bytes") as caught:
        refused.apply(refused.params, X)
    assert "Concat" in caught.value.where
    free, held = load(file), load(file, limits=Limits(live_bytes=peak))
    jax.tree.map(np.testing.assert_array_equal, held.apply(held.params, X), free.apply(free.params, X))


def branches():
    """An If whose branches compute 12 and then 24 bytes, beside 12 bytes that they read and the condition."""

    def chain(name):
        return branch([node("Sin", "before", f"{name}0"), node("Concat", f"{name}0 {name}0", name, axis=0)], name)

    return model(
        [
            node("Neg", "x", "before"),
            node("ReduceMax", "before", "most", keepdims=0),
            node("Cast", "most", "c", to=BOOL),
            node("If", "c", "y", then_branch=chain("a"), else_branch=chain("b")),
        ]
    )


def loop(trips, collected=False):
    """A loop that carries 12 bytes and computes as many twice a trip; it may collect 12 bytes a trip."""
    body = helper.make_graph(
        [node("Identity", "c", "d"), node("Sin", "v", "s"), node("Cos", "s", "w"), node("Identity", "w", "row")],
        "body",
        [value("i", (), INT64), value("c", (), BOOL), value("v")],
        [value("d", (), BOOL), value("w"), *([value("row")] if collected else [])],
    )
    return model(
        [node("Loop", "m t x", "y rows" if collected else "y", body=body)],
        outputs=[value("y"), *([value("rows", ("t", "n"))] if collected else [])],
        initializers=[tensor("m", np.int64(trips)), tensor("t", np.array(True))],
    )


TRIP = 1 + 12 + 12  # its condition, and two values
CARRIED = 1 + 12


@pytest.mark.parametrize(
    ("proto", "peak"),
    [
        (branches(), 12 + 1 + 12 + 24),
        (loop(40), TRIP),
        (loop(10), CARRIED + TRIP),
        (loop(10, collected=True), 9 * 12 + CARRIED + TRIP),
    ],
    ids=["If", "Loop", "unrolled Loop", "unrolled Loop that collects"],
)
def test_nested_graphs_count_beside_what_surrounds_them(tmp_path, proto, peak):
    file = tmp_path / "m.onnx"
    file.write_bytes(proto.SerializeToString())
    enough, short = (load(file, limits=Limits(live_bytes=bound)) for bound in (peak, peak - 1))
    jax.eval_shape(enough.apply, enough.params, X)
    with pytest.raises(LimitExceededError, match="live_bytes"):
        jax.eval_shape(short.apply, short.params, X)


EXPAND = tensor("s", np.int64([2**28]))
MANY = {
    "fan-out": model(
        [
            *(node("Expand", "x s", f"e{i}") for i in range(40)),
            helper.make_node("Sum", [f"e{i}" for i in range(40)], ["y"]),
        ],
        [value("x", (1,))],
        initializers=[EXPAND],
    ),
    "outputs": model(
        [node("Expand", "x s", f"y{i}") for i in range(40)],
        [value("x", (1,))],
        [value(f"y{i}") for i in range(40)],
        initializers=[EXPAND],
    ),
}


@pytest.mark.parametrize("proto", MANY.values(), ids=MANY)
def test_many_large_values_are_refused_before_they_are_computed(tmp_path, proto):
    file = tmp_path / "m.onnx"
    file.write_bytes(proto.SerializeToString())
    start = time.process_time()
    with pytest.raises(LimitExceededError, match="live_bytes"):
        load(file)(np.float32([1]))
    assert time.process_time() - start < 1


def test_values_leave_memory_after_their_last_reader(tmp_path):
    file = tmp_path / "m.onnx"
    chain = [helper.make_node("Neg", ["x" if i == 0 else f"c{i}"], [f"c{i + 1}"]) for i in range(50)]
    file.write_bytes(model([*chain, node("Identity", "c50", "y")]).SerializeToString())
    loaded = load(file, limits=Limits(live_bytes=2 * X.nbytes))
    np.testing.assert_array_equal(loaded(X), X)
