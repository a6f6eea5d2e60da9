"""Branches and loops against onnxruntime: decided while tracing where they can be, traced where they cannot."""

import jax
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from modeldiff_jax.errors import LimitExceededError, NotStaticError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.convert import to_model
from modeldiff_jax.models.model import Origin
from modeldiff_jax.models.onnx import read_graph
from tests.models.onnx.helpers import assert_same, convert, expected, info, whole

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs.split(), outputs.split(), **attrs)


def value(name, dtype, shape=None):
    return helper.make_tensor_value_info(name, dtype, shape)


def const(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def graph(nodes, inputs, outputs, initializers=()):
    return helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(initializers))


def model_of(nodes, feeds, outputs, initializers=(), opset=16):
    inputs = [info(name, array) for name, array in feeds.items()]
    return whole(graph(nodes, inputs, [value(o, t) for o, t in outputs.items()], initializers), opset)


def check(proto, feeds, static=(), **tolerance):
    """Concrete inputs, then all but the `static` ones traced."""
    feeds = {name: np.asarray(array) for name, array in feeds.items()}
    want = expected(proto, feeds)
    model = convert(proto)
    assert_same(model.apply(model.params, *feeds.values()), want, **tolerance)
    bound = model.bind(**{name: feeds[name] for name in static}) if static else model
    rest = [v for name, v in feeds.items() if name not in static]
    assert_same(jax.jit(bound.apply)(bound.params, *rest), want, **tolerance)


def choice(then_nodes, else_nodes, feeds, out=FLOAT):
    branches = {
        "then_branch": graph(then_nodes, [], [value("t", out)]),
        "else_branch": graph(else_nodes, [], [value("e", out)]),
    }
    return model_of([node("If", "c", "y", **branches)], feeds, {"y": out})


SAME_SHAPE = [node("Exp", "x", "t")], [node("Neg", "x", "e")]
OTHER_SHAPE = [node("Exp", "x", "t")], [node("ReduceSum", "x", "e")]


@pytest.mark.parametrize("condition", [True, False])
def test_if(condition):
    feeds = {"c": np.array(condition), "x": X}
    check(choice(*SAME_SHAPE, feeds), feeds)
    check(choice(*OTHER_SHAPE, feeds), feeds, static=["c"])


def test_branches_of_other_shapes_say_what_to_bind():
    feeds = {"c": np.array(True), "x": X}
    model = convert(choice(*OTHER_SHAPE, feeds))
    with pytest.raises(NotStaticError, match=r"model\.bind"):
        jax.jit(model.apply)(model.params, *feeds.values())


def test_if_has_derivatives_and_maps():
    feeds = {"c": np.array(True), "x": X}
    model = convert(choice(*SAME_SHAPE, feeds))
    conditions = np.array([True, False])
    slopes = jax.vmap(jax.grad(lambda x, c: model.apply(model.params, c, x).sum()), (None, 0))(X, conditions)
    np.testing.assert_allclose(slopes[0], np.exp(X), rtol=1e-6)
    np.testing.assert_array_equal(slopes[1], -1)


def test_a_branch_may_hold_a_branch():
    inner = choice(*SAME_SHAPE, {"c": np.array(True), "x": X}).graph.node[0]
    inner.input[0] = "d"
    inner.output[0] = "t"
    outer = helper.make_node(
        "If",
        ["c"],
        ["y"],
        then_branch=graph([inner], [], [value("t", FLOAT)]),
        else_branch=graph([node("Abs", "x", "e")], [], [value("e", FLOAT)]),
    )
    for c in (True, False):
        for d in (True, False):
            feeds = {"c": np.array(c), "d": np.array(d), "x": X}
            check(model_of([outer], feeds, {"y": FLOAT}), feeds)


def power_loop(collect):
    """v = v * x + i, optionally collecting v."""
    nodes = [
        node("Identity", "go", "go_on"),
        node("Mul", "v x", "vx"),
        node("Cast", "i", "fi", to=FLOAT),
        node("Add", "vx fi", "v_out"),
    ]
    outputs = [value("go_on", BOOL), value("v_out", FLOAT)]
    if collect:
        nodes.append(node("ReduceSum", "v_out", "row", keepdims=0))
        outputs.append(value("row", FLOAT))
    body = graph(nodes, [value("i", INT64, []), value("go", BOOL, []), value("v", FLOAT)], outputs)
    names = "final rows" if collect else "final"
    nodes = [node("Identity", "x", "start"), node("Loop", "n c start", names, body=body)]
    feeds = {"n": np.int64(0), "c": np.array(True), "x": X}
    return model_of(nodes, feeds, dict.fromkeys(names.split(), FLOAT))


@pytest.mark.parametrize("collect", [False, True])
@pytest.mark.parametrize("trips", [0, 1, 5, 40])
def test_counted_loop(trips, collect):
    feeds = {"n": np.int64(trips), "c": np.array(True), "x": 0.5 * X}
    check(power_loop(collect), feeds, static=["n", "c"], rtol=1e-4)


@pytest.mark.parametrize("trips", [0, 3, 40])
def test_a_loop_of_a_traced_number_of_trips(trips):
    check(power_loop(False), {"n": np.int64(trips), "c": np.array(True), "x": 0.5 * X}, rtol=1e-4)


def test_a_loop_that_never_starts():
    check(power_loop(True), {"n": np.int64(5), "c": np.array(False), "x": X}, static=["n", "c"])


def test_scan_outputs_of_an_unknown_number_of_trips_say_what_to_bind():
    model = convert(power_loop(True))
    with pytest.raises(NotStaticError, match=r"model\.bind"):
        jax.jit(model.apply)(model.params, np.int64(3), np.array(True), X)


@pytest.mark.parametrize("trips", [3, 40])
def test_the_derivative_of_a_counted_loop(trips):
    model = convert(power_loop(False)).bind(n=np.int64(trips), c=np.array(True))
    x = np.float32([[0.3, -0.4]])
    slope = jax.grad(lambda x: model.apply(model.params, x).sum())(x)

    def value_at(x):
        v = x
        for i in range(trips):
            v = v * x + i
        return v

    wide, eps = x.astype(np.float64), 1e-6
    numeric = (value_at(wide + eps) - value_at(wide - eps)) / (2 * eps)
    np.testing.assert_allclose(slope, numeric, rtol=1e-4)


def halving_loop():
    """Halves v until its largest entry is below 1, at most n times."""
    nodes = [
        node("Mul", "v half", "v_out"),
        node("ReduceMax", "v_out", "most", keepdims=0),
        node("Greater", "most one", "go_on"),
    ]
    body = graph(
        nodes,
        [value("i", INT64, []), value("go", BOOL, []), value("v", FLOAT)],
        [value("go_on", BOOL), value("v_out", FLOAT)],
        [const("half", np.float32(0.5)), const("one", np.float32(1))],
    )
    feeds = {"n": np.int64(0), "x": X}
    loop = node("Loop", "n c x", "y", body=body)
    loop.input[1] = ""
    return model_of([loop], feeds, {"y": FLOAT})


@pytest.mark.parametrize("trips", [2, 100])
@pytest.mark.parametrize("static", [(), ("n",)])
def test_a_loop_that_ends_by_its_data(trips, static):
    check(halving_loop(), {"n": np.int64(trips), "x": 1000 * np.abs(X)}, static=static)


def test_a_loop_without_a_bound_of_its_own():
    """Exporters write `while` as a Loop of as many trips as an int64 holds."""
    proto = halving_loop()
    proto.graph.node[0].input[:2] = ["most_trips", "c"]
    proto.graph.input[0].CopyFrom(value("c", BOOL, []))
    proto.graph.initializer.append(const("most_trips", np.int64(2**63 - 1)))
    proto = whole(proto.graph, 16)
    feeds = {"c": np.array(True), "x": 1000 * np.abs(X)}
    model = convert(proto)
    assert_same(jax.jit(model.apply)(model.params, *feeds.values()), expected(proto, feeds))


def test_a_loop_whose_trips_have_shapes_of_their_own():
    """Row i holds i + 1 numbers."""
    nodes = [
        node("Identity", "go", "go_on"),
        node("Add", "i one", "next"),
        node("Unsqueeze", "next axis", "shape"),
        node("Expand", "x shape", "part"),
        node("Concat", "v part", "v_out", axis=0),
    ]
    body = graph(
        nodes,
        [value("i", INT64, []), value("go", BOOL, []), value("v", FLOAT, [None])],
        [value("go_on", BOOL), value("v_out", FLOAT)],
        [const("one", np.int64(1)), const("axis", np.int64([0]))],
    )
    feeds = {"n": np.int64(4), "c": np.array(True), "x": np.float32([2.5]), "v0": np.zeros(1, np.float32)}
    proto = model_of([node("Loop", "n c v0", "y", body=body)], feeds, {"y": FLOAT})
    check(proto, feeds, static=["n", "c"])
    check(proto, {**feeds, "n": np.int64(20)}, static=["n", "c"])


def test_trips_are_bounded():
    model = convert(power_loop(False))
    with pytest.raises(LimitExceededError, match="loop_trips"):
        model.bind(n=np.int64(2**62), c=np.array(True))(X)


def test_loops_within_loops_are_bounded():
    body = graph(
        [node("Identity", "go0", "g0"), node("Abs", "v0", "w0")],
        [value("i0", INT64, []), value("go0", BOOL, []), value("v0", FLOAT)],
        [value("g0", BOOL), value("w0", FLOAT)],
    )
    for d in range(1, 8):
        body = graph(
            [node("Identity", f"go{d}", f"g{d}"), node("Loop", f"n go{d} v{d}", f"w{d}", body=body)],
            [value(f"i{d}", INT64, []), value(f"go{d}", BOOL, []), value(f"v{d}", FLOAT)],
            [value(f"g{d}", BOOL), value(f"w{d}", FLOAT)],
        )
    proto = model_of(
        [node("Loop", "n c x", "y", body=body)],
        {"x": X},
        {"y": FLOAT},
        [const("n", np.int64(16)), const("c", np.array(True))],
    )
    model = to_model(read_graph(proto.SerializeToString()), Origin("test", "onnx"), Limits(traced_calls=2000))
    with pytest.raises(LimitExceededError, match="traced_calls"):
        model(X)


def running_sum(**attrs):
    """Carries the sum of rows, collects it and the row's largest entry."""
    body = graph(
        [
            node("Add", "s row", "s_out"),
            node("Identity", "s_out", "sums"),
            node("ReduceMax", "row", "most", keepdims=0),
        ],
        [value("s", FLOAT), value("row", FLOAT)],
        [value("s_out", FLOAT), value("sums", FLOAT), value("most", FLOAT)],
    )
    feeds = {"s0": X[0] if attrs.get("scan_input_axes") != [1] else X[:, 0], "x": X}
    nodes = [node("Scan", "s0 x", "last all_sums all_most", body=body, num_scan_inputs=1, **attrs)]
    return model_of(nodes, feeds, dict.fromkeys(["last", "all_sums", "all_most"], FLOAT)), feeds


@pytest.mark.parametrize("attrs", [
    {}, {"scan_input_directions": [1]}, {"scan_output_directions": [1, 0]}, {"scan_input_axes": [1]},
    {"scan_output_axes": [1, 0]}, {"scan_input_axes": [1], "scan_output_axes": [-1, 0]},
])  # fmt: skip
def test_scan(attrs):
    check(*running_sum(**attrs))


def test_scan_before_opset_9_has_a_batch_axis():
    proto, _ = running_sum()
    (scan,) = proto.graph.node
    scan.input[:] = ["", "s0", "x"]
    feeds = {"s0": np.stack([X[0], X[1]]), "x": np.stack([X, -X])}
    proto = model_of([scan], feeds, dict.fromkeys(["last", "all_sums", "all_most"], FLOAT), opset=8)
    check(proto, feeds)


def test_the_derivative_of_a_scan():
    proto, feeds = running_sum()
    model = convert(proto)
    slope = jax.grad(lambda x: model.apply(model.params, feeds["s0"], x)[1].sum())(X)
    np.testing.assert_allclose(slope, np.broadcast_to([[3], [2], [1]], X.shape))
