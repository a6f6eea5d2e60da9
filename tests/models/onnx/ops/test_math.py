"""Arithmetic, activations and matrix products against onnxruntime."""

import jax
import numpy as np
import pytest

from tests.models.onnx.helpers import check_node, check_transforms, convert, node_model

RNG = np.random.default_rng(0)


def f32(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


X, Y, ROW = f32(2, 3, 4), f32(2, 3, 4), f32(4)
POSITIVE = np.abs(X) + np.float32(0.1)
UNIT = np.tanh(X)
EDGES = np.float32([-np.inf, -3.4e38, -1.5, -0.5, -0.0, 0.0, 0.5, 1.5, 2.5, 3.4e38, np.inf, np.nan])
INTS = np.int32([-7, -6, -1, 0, 1, 6, 7, 2**31 - 1])

UNARY = [
    ("Abs", X), ("Acos", UNIT), ("Acosh", POSITIVE + 1), ("Asin", UNIT), ("Asinh", X), ("Atan", X), ("Atanh", UNIT),
    ("Ceil", EDGES), ("Cos", X), ("Cosh", X), ("Erf", X), ("Exp", X), ("Floor", EDGES), ("Log", POSITIVE), ("Neg", X),
    ("Reciprocal", POSITIVE), ("Round", EDGES), ("Sigmoid", X), ("Sign", X), ("Sin", X), ("Sinh", X),
    ("Sqrt", POSITIVE), ("Tan", UNIT), ("Tanh", X), ("Relu", X), ("Abs", INTS), ("Neg", INTS), ("Sign", INTS),
]  # fmt: skip


@pytest.mark.parametrize(("op", "x"), UNARY)
def test_unary(op, x):
    check_node(op, [x], opset=14, atol=2e-6)


@pytest.mark.parametrize(("op", "x"), [case for case in UNARY if case[1] is not EDGES and case[1] is not INTS])
def test_unary_transforms(op, x):
    check_transforms(op, [x], opset=14)


@pytest.mark.parametrize("opset", [7, 13])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize(("a", "b"), [(X, Y), (X, ROW), (ROW, X), (X, np.float32(3)), (X[:, :1], X[:1])])
def test_broadcasting(op, a, b, opset):
    check_node(op, [a, b], opset=opset)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_binary_transforms(op):
    check_transforms(op, [X, POSITIVE[:, :1]])


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("divisor", [-7, -2, 2, 5])
def test_integer_division_truncates(dtype, divisor):
    check_node("Div", [INTS.astype(dtype), np.asarray([divisor], dtype)], opset=14)


@pytest.mark.parametrize("op", ["Add", "Mul", "Pow"])
@pytest.mark.parametrize(("b", "axis", "lined_up"), [
    (f32(3), 1, (1, 3, 1)), (f32(2, 3), 0, (2, 3, 1)), (f32(4), None, (4,)),
])  # fmt: skip
def test_broadcast_before_opset_7(op, b, axis, lined_up):
    base = POSITIVE if op == "Pow" else X
    want = {"Add": np.add, "Mul": np.multiply, "Pow": np.power}[op](base, b.reshape(lined_up))
    attrs = {"broadcast": 1} if axis is None else {"broadcast": 1, "axis": axis}
    check_node(op, [base, b], attrs, opset=6, want=[want])


@pytest.mark.parametrize("exponent", [2.0, 3.0, 0.5, -1.0, -2.0, 0.0, 1.0, 1.7])
def test_pow_by_a_number(exponent):
    check_node("Pow", [POSITIVE, np.float32(exponent)], opset=12)
    check_transforms("Pow", [POSITIVE, np.float32(exponent)], opset=12)


@pytest.mark.parametrize(("base", "exponent"), [
    (POSITIVE, Y), (POSITIVE, ROW), (X, np.int64([2])), (X, np.float32([[[[2.0]]]])), (INTS[:-1], np.int32([3])),
    (INTS[:-1], np.float32([2])),
])  # fmt: skip
def test_pow(base, exponent):
    check_node("Pow", [base, exponent], opset=15)


def test_a_known_exponent_has_a_derivative_at_zero():
    inputs = [np.zeros(3, np.float32), np.float32(2)]
    model = convert(node_model("Pow", inputs)).bind(x1=inputs[1])
    slope = jax.grad(lambda x: model.apply(model.params, x).sum())(np.float32([0.0, -1.5, 2.0]))
    np.testing.assert_allclose(slope, [0, -3, 4])


@pytest.mark.parametrize(("a", "b", "fmod"), [
    (INTS, np.int32([3]), 0), (INTS, np.int32([-3]), 0), (INTS, np.int32([3]), 1), (X, Y, 1), (X, np.float32(0.3), 1),
    (np.uint8([1, 7, 255]), np.uint8([3]), 0),
])  # fmt: skip
def test_mod(a, b, fmod):
    check_node("Mod", [a, b], {"fmod": fmod}, opset=13)


@pytest.mark.parametrize("op", ["Sum", "Max", "Min", "Mean"])
@pytest.mark.parametrize("opset", [8, 13])
@pytest.mark.parametrize("inputs", [[X], [X, Y], [X, ROW, f32(3, 1)]], ids=len)
def test_variadic(op, inputs, opset):
    check_node(op, inputs, opset=opset)


@pytest.mark.parametrize("op", ["Sum", "Max", "Min", "Mean"])
def test_variadic_transforms(op):
    check_transforms(op, [X, Y, ROW])


LOW, HIGH = np.float32(-0.5), np.float32(0.7)


@pytest.mark.parametrize(("inputs", "attrs", "opset"), [
    ([X], {}, 6), ([X], {"min": -0.5}, 6), ([X], {"min": -0.5, "max": 0.7}, 6),
    ([X, LOW], {}, 11), ([X, None, HIGH], {}, 11), ([X, LOW, HIGH], {}, 12), ([X], {}, 13), ([X, HIGH, LOW], {}, 13),
    ([INTS, np.int32(-2), np.int32(5)], {}, 12), ([INTS, None, np.int32(5)], {}, 12),
])  # fmt: skip
def test_clip(inputs, attrs, opset):
    check_node("Clip", inputs, attrs, opset)


def test_clip_before_opset_6():
    check_node("Clip", [X], {"max": 0.7}, 1, want=[np.minimum(X, HIGH)])


def test_clip_transforms():
    check_transforms("Clip", [X, LOW, HIGH])


@pytest.mark.parametrize(("a", "b"), [
    (f32(3, 4), f32(4, 5)), (f32(2, 3, 4), f32(4, 5)), (f32(2, 1, 3, 4), f32(5, 4, 2)), (f32(4), f32(4, 5)),
    (f32(3, 4), f32(4)), (f32(4), f32(4)), (np.arange(6, dtype=np.int32).reshape(2, 3), np.ones((3, 2), np.int32)),
])  # fmt: skip
def test_matmul(a, b):
    check_node("MatMul", [a, b], opset=13)


def test_matmul_transforms():
    check_transforms("MatMul", [f32(2, 3, 4), f32(4, 5)])


@pytest.mark.parametrize(("shapes", "attrs", "opset"), [
    (((3, 4), (4, 5), (3, 5)), {}, 7), (((3, 4), (4, 5), (5,)), {"alpha": 0.5, "beta": 2.0}, 9),
    (((4, 3), (5, 4), (3, 1)), {"transA": 1, "transB": 1}, 11), (((3, 4), (4, 5)), {}, 13),
    (((3, 4), (4, 5), ()), {"beta": 0.25}, 13),
])  # fmt: skip
def test_gemm(shapes, attrs, opset):
    check_node("Gemm", [np.asarray(f32(*shape)) for shape in shapes], attrs, opset)


def test_gemm_before_opset_7():
    a, b, c = f32(3, 4), f32(4, 5), f32(5)
    check_node("Gemm", [a, b, c], {"broadcast": 1}, 6, want=[a @ b + c])


def test_gemm_transforms():
    check_transforms("Gemm", [f32(4, 3), f32(4, 5), f32(5)], {"alpha": 0.5, "transA": 1})


@pytest.mark.parametrize(("equation", "shapes"), [
    ("ij,jk->ik", ((2, 3), (3, 4))), ("bij, bjk -> bik", ((2, 3, 4), (2, 4, 5))), ("...ii->...i", ((2, 3, 3),)),
    ("ij->ji", ((2, 3),)), ("i,j", ((2,), (3,))), ("bhqd,bhkd->bhqk", ((1, 2, 3, 4), (1, 2, 5, 4))),
])  # fmt: skip
def test_einsum(equation, shapes):
    check_node("Einsum", [f32(*shape) for shape in shapes], {"equation": equation}, opset=12)


@pytest.mark.parametrize("attrs", [{}, {"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1}])
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("x", [X, np.arange(6, dtype=np.int32).reshape(2, 3)], ids=["float", "int"])
def test_cumsum(x, axis, attrs):
    check_node("CumSum", [x, np.asarray(axis, np.int64)], attrs, opset=14)


def test_cumsum_transforms():
    check_transforms("CumSum", [X, np.asarray(1)], {"exclusive": 1})


TIES = np.float32([[1, 3, 3, 2, 3], [0, -1, 0, -1, 5]])


@pytest.mark.parametrize("x", [X, TIES, np.int64([[5, -(2**40), 5, 7]]) % 1000, np.uint8([[0, 255, 3, 255]])])
@pytest.mark.parametrize(("axis", "largest"), [(-1, 1), (-1, 0), (0, 1), (0, 0)])
def test_topk(x, axis, largest):
    k = min(2, x.shape[axis])
    dtype = np.int32 if x.dtype == np.uint8 else x.dtype  # onnxruntime has no uint8 kernel
    check_node("TopK", [x.astype(dtype), np.int64([k])], {"axis": axis, "largest": largest}, 11, n_outputs=2)


def test_topk_before_opset_10():
    check_node("TopK", [X], {"axis": 1, "k": 2}, 9, n_outputs=2)


def test_topk_transforms():
    check_transforms("TopK", [X, np.int64([2])], {"axis": 1})


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint32])
def test_bit_shift(dtype, direction):
    check_node("BitShift", [dtype([1, 200, 255]), dtype([1, 2, 7])], {"direction": direction}, opset=11)
