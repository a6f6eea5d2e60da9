"""Calling a model: inputs by order and by name, checks, binding."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.model import Model, Origin
from modeldiff_jax.types import TensorSpec
from tests.helpers.onnx_graphs import model as onnx_model
from tests.helpers.onnx_graphs import node, value
from tests.models.onnx.helpers import convert

pytestmark = pytest.mark.default_promotion

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)


def repeat_apply(params, x, times):
    if isinstance(times, np.ndarray):  # bound: known while tracing, so it may decide a shape
        return jnp.tile(x, (1, int(times))) * params["scale"]
    return x * times * params["scale"]


@pytest.fixture
def model():
    return Model(
        repeat_apply,
        {"scale": jnp.float32(2)},
        (TensorSpec("x", ("n", 3), F32), TensorSpec("times", (), I64)),
        (TensorSpec("y", ("n", "?"), F32),),
        Origin("repeat", "test"),
    )


X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize(
    "call",
    [lambda m: m(X, 3), lambda m: m(X, times=3), lambda m: m(times=3, x=X), lambda m: m(jnp.asarray(X), np.int64(3))],
    ids=["ordered", "mixed", "named", "arrays"],
)
def test_inputs_by_order_and_by_name(model, call):
    np.testing.assert_array_equal(call(model), X * 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(X), "no value for times"),
        (lambda m: m(X, 3, 4), "3 positional inputs"),
        (lambda m: m(X, 3, x=X), "each input once"),
        (lambda m: m(X, 3, z=X), "z"),
        (lambda m: m(X[0], 3), "2 axes"),
        (lambda m: m(X[:, :2], 3), "must be 3"),
        (lambda m: m(X.astype(np.complex64), 3), "complex64"),
        (lambda m: m(X, 2.5), "float64"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(model, call, message):
    with pytest.raises(InvalidInputError, match=message):
        call(model)


def test_equal_names_of_dynamic_sizes_mean_equal_sizes_and_unnamed_ones_do_not():
    specs = tuple(TensorSpec(name, shape, F32) for name, shape in [("a", ("n", "?")), ("b", ("n", "?"))])
    model = Model(lambda params, a, b: a.sum() + b.sum(), {}, specs, (), Origin("sum", "test"))
    assert model(np.ones((2, 3)), np.ones((2, 4))) == 14
    with pytest.raises(InvalidInputError, match="n must be 2"):
        model(np.ones((2, 3)), np.ones((3, 3)))


def test_a_bound_input_is_known_while_tracing(model):
    bound = model.bind(times=2)
    assert bound.input_names == ("x",)
    np.testing.assert_array_equal(bound(X), np.tile(X, (1, 2)) * 2)
    assert bound.bound == {"times": 2}
    np.testing.assert_array_equal(jax.jit(bound.apply)(bound.params, X), np.tile(X, (1, 2)) * 2)


def test_equal_bindings_share_one_function(model):
    assert model.bind(times=2).apply is model.bind(times=2).apply
    assert model.bind(times=2).apply is not model.bind(times=3).apply


NARROW = [
    np.float16,
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e5m2,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.int4,
    np.bool_,
    np.int64,
]


@pytest.mark.parametrize("dtype", NARROW, ids=lambda dtype: np.dtype(dtype).name)
def test_binding_keeps_the_type(dtype):
    proto = onnx_model(
        [node("Cast", "s", "f", to=TensorProto.FLOAT), node("Mul", "x f", "y")],
        [value("x", ("n",)), value("s", (2,), helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))],
        opset=25,
    )
    proto.ir_version = 11
    found = convert(proto)
    s = np.asarray([1, 0], dtype)
    bound = found.bind(s=s)
    assert bound.bound == {"s": s.tolist()}
    json.dumps(bound.to_dict())
    x = np.float32([3, 5])
    np.testing.assert_array_equal(bound(x), [3, 0])
    np.testing.assert_array_equal(found(x, s), [3, 0])
    assert found.bind(s=s).apply is bound.apply


@pytest.mark.parametrize(
    "times", [2.7, [1, 2, 3], "two", None, 1j, 2**70], ids=["float", "rank", "text", "nothing", "complex", "too large"]
)
def test_binding_refuses_what_a_call_refuses(model, times):
    with pytest.raises(InvalidInputError) as called:
        model(X, times)
    with pytest.raises(InvalidInputError) as bound:
        model.bind(times=times)
    assert str(bound.value) == str(called.value)


def test_of_a_long_bound_value_the_shape_is_kept():
    found = convert(onnx_model([node("Add", "x b", "y")], [value("x", (64,)), value("b", (64,))]))
    assert found.bind(b=np.ones(64)).bound == {"b": "float32[64]"}


# Names of sizes in a file


def test_a_file_s_names_of_sizes_hold_no_call_to_them():
    """As in onnxruntime: here one "batch" names a sample's axis and a time step's, which is broadcast."""
    proto = onnx_model([node("Add", "x t", "y")], [value("x", ("batch", 4)), value("t", ("batch",))])
    found = convert(proto)
    assert found(np.ones((2, 4), np.float32), np.float32([7])).shape == (2, 4)
    bound = found.bind(t=np.float32([7]))
    assert bound(np.ones((3, 4), np.float32)).shape == (3, 4)


def test_where_sizes_do_not_fit_the_error_says_which_names_differ():
    found = convert(onnx_model([node("Add", "a b", "y")], [value("a", ("n", 4)), value("b", ("n", 4))]))
    for call in (found, found.eager):
        with pytest.raises(InvalidInputError, match=r"axes named `n` are 2 in `a` and 3 in `b`"):
            call(np.ones((2, 4)), np.ones((3, 4)))
    with pytest.raises(InvalidInputError, match="axis 1 must be 4"):
        found(np.ones((2, 5)), np.ones((2, 4)))


@pytest.mark.parametrize("name", ["?", "None", "-1", "dynamic", "*", ""])
def test_words_for_any_size_are_no_names(name):
    found = convert(onnx_model([node("GlobalAveragePool", "x", "y")], [value("x", (name, 3, name, name))]))
    assert found.inputs[0].shape == ("?", 3, "?", "?")
    assert found(np.ones((2, 3, 4, 5), np.float32)).shape == (2, 3, 1, 1)


def test_bindings_are_a_part_of_the_identity(model):
    file = replace(model, origin=Origin("repeat", "onnx", "ab" * 32))
    assert file.origin.content_sha256 == file.origin.sha256
    bound = [file.bind(times=times).origin for times in (2, 2, 3)]
    assert {origin.sha256 for origin in bound} == {file.origin.sha256}
    assert bound[0].content_sha256 == bound[1].content_sha256
    assert len({origin.content_sha256 for origin in (*bound, file.origin)}) == 3
    assert model.bind(times=2).origin.content_sha256 == ""  # nothing identifies it


def test_binding_an_unknown_input_is_refused(model):
    with pytest.raises(InvalidInputError, match="rate"):
        model.bind(rate=1)


def test_a_model_without_floating_inputs_has_no_gradients():
    def make(dtype, traceable=True):
        spec = TensorSpec("x", (1, 4), np.dtype(dtype))
        return Model(lambda params, x: x, {}, (spec,), (spec,), Origin("m", "test"), traceable)

    assert make(np.float32).has_gradients
    assert not make(np.int32).has_gradients
    assert not make(np.float32, traceable=False).has_gradients
