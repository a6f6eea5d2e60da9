"""Types beyond JAX's usual 32 bits: in int64, uint64 and float64 models give onnxruntime's values in its types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from onnx import TensorProto, helper, numpy_helper

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.runtime import x64
from tests.models.onnx.helpers import assert_same, convert, expected, node_model

RNG = np.random.default_rng(0)
FAR = 2**45
K = RNG.integers(-FAR, FAR, (3, 4))
J = RNG.integers(1, FAR, (3, 4))
U = RNG.integers(0, 2**63, (3, 4)).astype(np.uint64) * 2 + 1
D = RNG.standard_normal((3, 4))
F = D.astype(np.float32)
MASK = D > 0
TOP, LOW = np.int64(2**63 - 1), np.int64(-(2**63))


def check(proto, feeds):
    """Compares a model, called and operator by operator, with onnxruntime."""
    want, model = expected(proto, feeds), convert(proto)
    assert_same(model(**feeds), want, rtol=1e-15, atol=0)
    assert_same(model.eager(**feeds), want, rtol=1e-15, atol=0)


CASES = {
    "difference": ("Sub", [K, J], {}),
    "product that wraps": ("Mul", [K, J], {}),
    "truncated quotient": ("Div", [K, J], {}),
    "remainder": ("Mod", [K, J], {}),
    "remainder of floats": ("Mod", [D, np.abs(D[::-1]) + 0.1], {"fmod": 1}),
    "power": ("Pow", [np.int64([3, 5]), np.int64([30, 20])], {}),
    "comparison": ("Less", [K, K + 1], {}),
    "larger of uint64": ("Max", [U, U[::-1]], {}),
    "clamp without upper bound": ("Clip", [K, np.int64(0), TOP], {}),
    "clamp without lower bound": ("Clip", [K, LOW, np.int64(5)], {}),
    "choice of a constant": ("Where", [MASK, K, np.full((1,), TOP)], {}),
    "sum": ("ReduceSum", [K, np.int64([1])], {}),
    "running sum": ("CumSum", [K, np.int64(1)], {}),
    "least": ("ReduceMin", [K], {"axes": [0]}),
    "place of the largest": ("ArgMax", [K], {"axis": 1}),
    "place of the largest of floats": ("ArgMax", [F], {"axis": 1, "select_last_index": 1}),
    "places of doubles": ("ArgMin", [D], {"axis": 0, "keepdims": 0}),
    "largest": ("TopK", [K, np.int64([2])], {"axis": 1}),
    "bits": ("BitShift", [U, np.uint64([[3]])], {"direction": "RIGHT"}),
    "entries": ("Gather", [K, np.int64([2, 0, -1])], {}),
    "entries in step": ("GatherElements", [K, np.int64([[0, 2, 1, -1]])], {}),
    "scattered": ("ScatterND", [K, np.int64([[0, 1], [2, 3]]), np.int64([TOP, LOW])], {}),
    "one-hot": ("OneHot", [np.int64([0, 2**32, -1]), np.int64(4), np.int64([FAR, -FAR])], {}),
    "padding": ("Pad", [K, np.int64([1, 0, 0, 1]), np.int64(FAR)], {}),
    "matrix product": ("MatMul", [D, D.T], {}),
    "affine": ("Gemm", [D, D.T, D[:, :3]], {"alpha": 0.3}),
    "softmax": ("Softmax", [D], {}),
    "norm": ("ReduceL2", [D], {"axes": [1]}),
    "normalisation": ("LayerNormalization", [D, D[0], D[1]], {}),
    "float32 to int64": ("Cast", [np.float32([1e12, -3e15, 0.7])], {"to": TensorProto.INT64}),
    "int64 to double": ("Cast", [np.int64([2**53 - 1, -FAR])], {"to": TensorProto.DOUBLE}),
    "int64 to int32, which wraps": ("Cast", [K], {"to": TensorProto.INT32}),
    "float32 to double": ("Cast", [np.float32([0.1, 0.3])], {"to": TensorProto.DOUBLE}),
    "double to float32": ("Cast", [np.float64([1e300, 0.1])], {"to": TensorProto.FLOAT}),
    "numbers to booleans": ("Cast", [np.int64([2**40, 0])], {"to": TensorProto.BOOL}),
    "uint64 to double": ("Cast", [U], {"to": TensorProto.DOUBLE}),
}


@pytest.mark.parametrize("case", CASES)
def test_operators(case):
    op, inputs, attributes = CASES[case]
    outputs = 2 if op == "TopK" else 1
    static = {"TopK": [1], "ReduceSum": [1], "Pad": [1], "OneHot": [1]}.get(op, [])  # what must be known under jit
    proto = node_model(op, inputs, attributes, n_outputs=outputs)
    feeds = {f"x{i}": np.asarray(value) for i, value in enumerate(inputs)}
    want, model = expected(proto, feeds), convert(proto)
    fixed = {f"x{i}": feeds[f"x{i}"] for i in static}
    bound = model.bind(**fixed) if fixed else model
    rtol = 2e-15 if all(w.dtype != np.float32 for w in want) else 1e-6
    rest = {name: value for name, value in feeds.items() if name not in fixed}
    assert_same(bound(**rest), want, rtol=rtol, atol=rtol)
    assert_same(model.eager(**feeds), want, rtol=rtol, atol=rtol)


BEYOND = np.float32([1e20, -1e20, np.nan, np.inf, -3e9, 3e9, -1.5, 300.7])


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        (TensorProto.INT64, [LOW, LOW, LOW, LOW, -3_000_000_000, 3_000_000_000, -1, 300]),
        (TensorProto.INT32, [-(2**31)] * 6 + [-1, 300]),
        (TensorProto.UINT32, [0, 2**31, 2**31, 0, 2**31, 3_000_000_000, 2**32 - 1, 300]),
        (TensorProto.UINT64, [0, 2**63, 2**63, 0, 2**64 - 3_000_000_000, 3_000_000_000, 2**64 - 1, 300]),
        (TensorProto.INT8, [0] * 6 + [-1, 44]),
        (TensorProto.UINT16, [0] * 6 + [2**16 - 1, 300]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_that_an_integer_cannot_hold(kind, result, dtype):
    """ONNX leaves them open; these are onnxruntime's values on x86, whether a value is known or traced."""
    x = BEYOND.astype(dtype)
    model = convert(node_model("Cast", [x], {"to": kind}))
    assert model(x).tolist() == result
    assert np.asarray(model.apply(model.params, x)).tolist() == result


def graph_model(nodes, inputs, outputs, constants, opset=17):
    made = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def info(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


INT64, DOUBLE, FLOAT, BOOL = TensorProto.INT64, TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.BOOL


def loop_model(trips, grows=False):
    """A Loop that doubles `x`; it ends after some iterations, or where `x` passes 2**50; `grows` stacks the values."""
    nodes = [helper.make_node("Mul", ["a", "two"], ["b"])]
    condition = helper.make_node("Identity", ["c"], ["go"])
    if trips is None:
        nodes.append(helper.make_node("ReduceMax", ["b"], ["top"], keepdims=0))
        condition = helper.make_node("Less", ["top", "far"], ["go"])
    outputs = [info("go", BOOL, []), info("b", INT64, [2])]
    if grows:
        nodes.append(helper.make_node("Add", ["b", "i"], ["row"]))
        outputs.append(info("row", INT64, [2]))
    body = helper.make_graph(
        [*nodes, condition],
        "body",
        [info("i", INT64, []), info("c", BOOL, []), info("a", INT64, [2])],
        outputs,
        [numpy_helper.from_array(np.int64(2), "two"), numpy_helper.from_array(np.int64(2**50), "far")],
    )
    names = ["y", *(["rows"] if grows else [])]
    loop = helper.make_node("Loop", ["most", "yes", "x"], names, body=body)
    most = TOP if trips is None else np.int64(trips)
    shapes = [info("y", INT64, [2]), *([info("rows", INT64, [trips, 2])] if grows else [])]
    return graph_model([loop], [info("x", INT64, [2])], shapes, {"most": most, "yes": np.array(True)})


@pytest.mark.parametrize(
    "proto",
    [loop_model(5), loop_model(40), loop_model(40, grows=True), loop_model(None)],
    ids=["written out", "counted", "counted with rows", "ends by data"],
)
def test_loops(proto):
    check(proto, {"x": np.int64([3, -1])})


def test_branches():
    def side(factor):
        constant = numpy_helper.from_array(np.int64([factor]), f"k{factor}")
        return helper.make_graph(
            [helper.make_node("Mul", ["x", f"k{factor}"], ["z"])], "side", [], [info("z", INT64, [2])], [constant]
        )

    node = helper.make_node("If", ["t"], ["y"], then_branch=side(2**40), else_branch=side(-(2**41)))
    inputs = [info("t", BOOL, []), info("x", INT64, [2])]
    proto = graph_model([node], inputs, [info("y", INT64, [2])], {})
    for t in (True, False):
        check(proto, {"t": np.array(t), "x": np.int64([3, 5])})


def scan_model():
    body = helper.make_graph(
        [helper.make_node("Mul", ["s", "x"], ["t"]), helper.make_node("Identity", ["t"], ["row"])],
        "body",
        [info("s", INT64, []), info("x", INT64, [])],
        [info("t", INT64, []), info("row", INT64, [])],
    )
    node = helper.make_node("Scan", ["start", "xs"], ["last", "rows"], body=body, num_scan_inputs=1)
    outputs = [info("last", INT64, []), info("rows", INT64, [5])]
    return graph_model([node], [info("start", INT64, []), info("xs", INT64, [5])], outputs, {})


def test_scans():
    check(scan_model(), {"start": np.array(7), "xs": np.int64([1000, 1000, 1000, 1000, 1])})


# Programs, whatever is done with them


def masked_minimum():
    """The least of the entries that a mask leaves, as float32 by way of a sum in double."""
    nodes = [
        helper.make_node("Where", ["m", "x", "top"], ["w"]),
        helper.make_node("ReduceMin", ["w"], ["least"], keepdims=0),
        helper.make_node("Cast", ["least"], ["wide"], to=DOUBLE),
        helper.make_node("Cast", ["f"], ["g"], to=DOUBLE),
        helper.make_node("Mul", ["g", "g"], ["h"]),
        helper.make_node("Add", ["h", "wide"], ["sum"]),
        helper.make_node("Sub", ["sum", "wide"], ["back"]),
        helper.make_node("Cast", ["back"], ["y"], to=FLOAT),
    ]
    inputs = [info("x", INT64, [3]), info("m", BOOL, [3]), info("f", FLOAT, [])]
    outputs = [info("least", INT64, []), info("y", FLOAT, [])]
    return graph_model(nodes, inputs, outputs, {"top": TOP})


FEEDS = {"x": np.int64([FAR + 7, FAR + 4, 1]), "m": np.array([True, True, False]), "f": np.array(0.5, np.float32)}


@pytest.fixture(scope="module")
def masked():
    return convert(masked_minimum())


def test_a_program_in_jit_vmap_and_export_keeps_types_and_values(masked):
    want = expected(masked_minimum(), FEEDS)
    inputs = masked.arrange((), FEEDS)
    assert_same(jax.jit(masked.apply)(masked.params, *inputs), want)
    several = jax.tree.map(lambda v: jnp.stack([v, v]), inputs[2:])
    mapped = jax.vmap(jax.jit(masked.apply), (None, None, None, 0))(masked.params, *inputs[:2], *several)
    assert_same(tuple(part[1] for part in mapped), want)
    program = export.deserialize(export.export(jax.jit(masked.apply))(masked.params, *inputs).serialize())
    assert_same(tuple(program.call(masked.params, *inputs)), want)


def test_a_gradient_passes_through_doubles(masked):
    x, m, f = masked.arrange((), FEEDS)

    def y(f):
        return masked.apply(masked.params, x, m, f)[1]

    for slope in (jax.grad(y), jax.jit(jax.grad(y)), jax.grad(jax.jit(y)), jax.jacfwd(y)):
        np.testing.assert_allclose(slope(f), 1.0, rtol=2e-3)  # 2 f, as exact as the sum beside 2**45


def test_shapes_are_known_without_values(masked):
    structs = [jax.ShapeDtypeStruct(v.shape, jax.dtypes.canonicalize_dtype(v.dtype)) for v in FEEDS.values()]
    least, y = jax.eval_shape(masked.apply, masked.params, *structs)
    assert (least.dtype, y.dtype) == (np.int64, np.float32)


def test_models_of_one_graph_share_one_program(masked):
    other = convert(masked_minimum())
    assert other.apply is masked.apply
    one_graph = [convert(node_model("Add", [D, D])) for _ in range(2)]
    assert one_graph[0].apply is one_graph[1].apply


def test_what_jit_has_narrowed_is_widened_again(masked):
    """JAX cuts numpy's integers to 32 bits before a function sees them: small values survive it, and so do types."""
    least, _ = jax.jit(masked.apply)(masked.params, np.int64([7, 5, 1]), FEEDS["m"], FEEDS["f"])
    assert least.dtype == np.int64
    assert int(least) == 5


def test_weights_keep_their_type():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    w = RNG.standard_normal((4, 3))
    model = convert(graph_model(nodes, [info("x", DOUBLE, [2, 4])], [info("y", DOUBLE, [2, 3])], {"w": w}))
    assert model.params["w"].dtype == np.float64
    x = D[:2]
    np.testing.assert_allclose(model(x), x @ w, rtol=1e-14)
    narrowed = {"w": jnp.asarray(w, np.float32)}  # by an optimiser of 32-bit mode, say
    result = jax.jit(model.apply)(narrowed, *model.arrange((x,), {}))
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, x @ w, rtol=1e-5)


def test_the_mode_of_64_bits_changes_nothing(masked):
    want = expected(masked_minimum(), FEEDS)
    with jax.enable_x64(True):
        assert_same(masked(**FEEDS), want)
        assert_same(masked.eager(**FEEDS), want)


# What costs nothing


def primitives(jaxpr):
    """(name, dtypes of the results) of every operation, nested ones included."""
    for equation in jaxpr.eqns:
        inner = [getattr(value, "jaxpr", value) for value in equation.params.values()]
        nested = [value for value in inner if hasattr(value, "eqns")]
        for part in nested:
            yield from primitives(part)
        if not nested:
            yield equation.primitive.name, {str(value.aval.dtype) for value in equation.outvars}


def embedding():
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    constants = {"table": F.repeat(1024, 0), "w": np.outer(F[0], F[1]) + F[2]}
    outputs = [info("scores", FLOAT, ["n", 4]), info("label", INT64, ["n"])]
    return graph_model(nodes, [info("ids", INT64, ["n", 6])], outputs, constants)


def test_integers_that_only_name_places_are_narrowed_at_once():
    model = convert(embedding())
    ids = RNG.integers(0, 3072, (2, 6))
    assert_same(model(ids), expected(embedding(), {"ids": ids}), rtol=1e-5, atol=1e-6)
    program = jax.make_jaxpr(model.apply)(model.params, *model.arrange((ids,), {}))
    wide = [name for name, types in primitives(program.jaxpr) if types & {"int64", "float64"}]
    assert set(wide) <= {"clamp", "convert_element_type"}
    assert sum(name == "convert_element_type" for name in wide) <= 1  # the label's


@pytest.mark.parametrize("far", [2**32, 2**40 + 1, 2**63 - 1])
def test_an_index_beyond_32_bits_does_not_wrap_into_range(far):
    proto = node_model("OneHot", [np.int64([far, 1]), np.int64(4), np.float32([0, 1])])
    feeds = {"x0": np.int64([far, 1]), "x1": np.int64(4), "x2": np.float32([0, 1])}
    model = convert(proto).bind(x1=4)
    np.testing.assert_array_equal(model(feeds["x0"], feeds["x2"]), [[0, 0, 0, 0], [0, 1, 0, 0]])


# Inputs


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**63 - 1, np.uint64(2**63)])
def test_an_integer_that_the_declared_type_cannot_hold_is_refused(value):
    model = convert(node_model("Neg", [np.int32([0])]))
    with pytest.raises(InvalidInputError, match=f"values from {value} to {value}"):
        model([value])
    with pytest.raises(InvalidInputError, match="values from"):
        model.bind(x0=[value])


def test_any_type_of_integers_that_fits_is_taken():
    model = convert(node_model("Neg", [np.int64([0])]))
    for dtype in (np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64, bool):
        result = model(np.asarray([1], dtype))
        assert result.dtype == np.int64
        assert result.tolist() == [-1]


@pytest.mark.parametrize("make", [np.asarray, x64.as_array], ids=["numpy", "jax"])
def test_inputs_of_64_bits_arrive_whole(make):
    model = convert(node_model("Sub", [K, J]))
    np.testing.assert_array_equal(model(make(K), make(J)), K - J)
    np.testing.assert_array_equal(model.eager(make(K), make(J)), K - J)


def test_an_example_s_decisions_are_compared_in_full():
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    inputs = [info("x", FLOAT, [4]), info("shape", INT64, [2])]
    model = convert(graph_model(nodes, inputs, [info("y", FLOAT, ["a", "b"])], {}))
    special = model.specialise(F[0], np.int64([2, 2]))
    assert special(F[0], np.int64([2, 2])).shape == (2, 2)
    with pytest.raises(InvalidInputError, match="decide"):
        special(F[0], np.int64([2 + 2**32, 2]))
