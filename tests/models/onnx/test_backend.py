"""The Backend API: how values go in and out."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from modeldiff_jax.errors import InvalidInputError, LimitExceededError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.onnx import backend
from tests.models.onnx.helpers import info, node_model

X = np.asarray([[1.0, -2.0], [3.0, -4.0]], np.float32)


def test_inputs_go_by_order_by_name_or_alone():
    rep = backend.prepare(node_model("Relu", [X]))
    want = np.maximum(X, 0)
    for inputs in ([X], (X,), {"x0": X}, X):
        (y,) = rep.run(inputs)
        np.testing.assert_array_equal(y, want)
    assert rep.run([X]).y0 is not None


@pytest.mark.parametrize("inputs", [[], [X, X], {"x": X}, {"x0": X, "x1": X}])
def test_each_input_is_given_once(inputs):
    with pytest.raises(InvalidInputError, match="given once"):
        backend.prepare(node_model("Relu", [X])).run(inputs)


def test_an_input_may_decide_a_shape():
    proto = node_model("Reshape", [X, np.asarray([4])])
    (y,) = backend.run_model(proto, [X, np.asarray([1, 4])])
    assert y.shape == (1, 4)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float64])
def test_types_of_64_bits_are_kept(dtype):
    big = np.asarray([2**53 - 1, 1], dtype)
    (y,) = backend.run_node(helper.make_node("Add", ["a", "b"], ["y"]), [big, big])
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, big + big)


def test_sequences_are_lists_and_absent_optionals_none():
    (xs,) = backend.run_node(helper.make_node("SequenceConstruct", ["a", "b"], ["s"]), [X, X[0]])
    assert isinstance(xs, list)
    np.testing.assert_array_equal(xs[1], X[0])
    absent = helper.make_node("Optional", [], ["o"], type=helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))
    assert backend.run_node(absent, [])[0] is None


def test_strings_are_arrays_of_objects():
    a, b = np.asarray(["x", "y"], object), np.asarray(["1"], object)
    node = helper.make_node("StringConcat", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "g", [info("a", a), info("b", b)], [helper.make_empty_tensor_value_info("c")])
    (c,) = backend.run_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), [a, b])
    assert c.dtype == object
    assert c.tolist() == ["x1", "y1"]


def test_a_nodes_opset_may_be_chosen():
    x = np.asarray([[1.0, 2.0], [3.0, 4.0]], np.float32)
    node = helper.make_node("Softmax", ["x"], ["y"], axis=0)
    (old,), (new,) = (backend.run_node(node, [x], opset_version=v) for v in (11, 13))
    np.testing.assert_allclose(old.sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(new.sum(0), 1, rtol=1e-6)


def test_devices_and_limits():
    assert backend.supports_device("CPU")
    assert not backend.supports_device("TPU")
    with pytest.raises(InvalidInputError, match="device"):
        backend.prepare(node_model("Relu", [X]), "TPU")
    with pytest.raises(LimitExceededError, match="nodes"):
        backend.prepare(node_model("Relu", [X]), limits=Limits(nodes=0))


def test_compatible_is_what_can_be_prepared():
    assert backend.is_compatible(node_model("Relu", [X]))
    assert not backend.is_compatible(node_model("NoSuchOperator", [X]))
