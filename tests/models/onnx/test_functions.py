"""A model's own functions are inlined, and bounded before they are."""

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper

from modeldiff_jax.errors import InvalidModelError, LimitExceededError, UnsupportedModelError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.onnx import backend
from tests.models.onnx.helpers import expected

IMPORTS = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]


def call(name, read, written, **attributes):
    return helper.make_node(name, [read], [written], domain="local", **attributes)


def function(name, nodes, attributes=(), defaults=(), inputs=("a",), opsets=IMPORTS):
    return helper.make_function("local", name, inputs, ["b"], nodes, opsets, attributes, defaults)


def model(nodes, functions):
    kind = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [kind("x", TensorProto.FLOAT, (3,))], [kind("y", TensorProto.FLOAT, (3,))])
    return helper.make_model(graph, opset_imports=IMPORTS, functions=functions, ir_version=10)


def referring(op, name, to, read="a", written="b"):
    """A node whose attribute is the one its function is called with."""
    node = helper.make_node(op, [read], [written])
    node.attribute.add(name=name, ref_attr_name=to, type=AttributeProto.FLOAT)
    return node


def leaky(default=None):
    defaults = [] if default is None else [helper.make_attribute("slope", default)]
    return function("leaky", [referring("LeakyRelu", "alpha", "slope")], [] if defaults else ["slope"], defaults)


X = np.asarray([-2.0, 0.5, 3.0], np.float32)


@pytest.mark.parametrize(
    ("nodes", "functions"),
    [
        ([call("leaky", "x", "y", slope=0.25)], [leaky()]),
        ([call("leaky", "x", "y")], [leaky(0.5)]),
        ([call("leaky", "x", "y", slope=0.25)], [leaky(0.5)]),
        # the same function twice, and names that the graph uses too
        ([call("leaky", "x", "a", slope=0.25), call("leaky", "a", "y", slope=0.75)], [leaky()]),
        # an attribute handed on, and a name inside that both functions use
        (
            [call("outer", "x", "y", slope=0.25)],
            [
                function(
                    "outer",
                    [
                        helper.make_node("Abs", ["a"], ["m"]),
                        helper.make_node("Sub", ["a", "m"], ["n"]),
                        referring("leaky", "slope", "slope", "n", "b"),
                    ],
                    ["slope"],
                ),
                leaky(),
            ],
        ),
    ],
    ids=["attribute", "default", "attribute over default", "twice", "nested"],
)
def test_a_call_is_its_functions_nodes(nodes, functions):
    proto = model(nodes, functions)
    for inner in proto.functions:
        for node in inner.node:
            node.domain = "local" if node.op_type == "leaky" else ""
    np.testing.assert_array_equal(backend.run_model(proto, [X])[0], expected(proto, {"x": X})[0])


def test_a_function_sees_nothing_of_the_graph():
    body = [helper.make_node("Add", ["a", "x"], ["b"])]
    with pytest.raises(InvalidModelError, match="computed before"):
        backend.prepare(model([call("f", "x", "y")], [function("f", body)]))


def test_inputs_left_out_are_left_out_inside():
    body = [helper.make_node("Clip", ["a", "low", "high"], ["b"])]
    proto = model([call("f", "x", "y")], [function("f", body, inputs=("a", "low", "high"))])
    np.testing.assert_array_equal(backend.run_model(proto, [X])[0], X)


def test_the_version_of_a_domain_of_functions_says_nothing():
    """Exporters write the version of ONNX's own operators there, or 1."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 17)]
    body = [call("leaky", "a", "b", slope=0.25)]
    proto = model([call("f", "x", "y")], [leaky(), function("f", body, opsets=imports)])
    np.testing.assert_array_equal(backend.run_model(proto, [X])[0], np.where(X < 0, X / 4, X))


@pytest.mark.parametrize("inner", [9, 13, 18, 21])
def test_a_function_may_import_other_versions_that_define_its_operators_alike(inner):
    nodes = [helper.make_node("Relu", ["a"], ["r"]), helper.make_node("Add", ["r", "r"], ["b"])]
    proto = model([call("f", "x", "y")], [function("f", nodes, opsets=[helper.make_opsetid("", inner)])])
    np.testing.assert_array_equal(backend.run_model(proto, [X])[0], 2 * np.maximum(X, 0))


@pytest.mark.parametrize(
    ("node", "inner"),
    [
        (helper.make_node("Softmax", ["a"], ["b"]), 12),  # of all axes from 1 on, not of the last one
        (helper.make_node("Clip", ["a"], ["b"], min=0.0), 10),
        (helper.make_node("ReduceSum", ["a"], ["b"], axes=[1]), 12),
    ],
    ids=lambda value: getattr(value, "op_type", value),
)
def test_operators_that_the_model_s_version_defines_otherwise_are_refused_by_name(node, inner):
    """The specification reads them at the function's version, onnxruntime at the model's."""
    proto = model([call("f", "x", "y")], [function("f", [node], opsets=[helper.make_opsetid("", inner)])])
    with pytest.raises(UnsupportedModelError, match=f"{node.op_type} of opset {inner}"):
        backend.prepare(proto)


def chain(length, calls):
    """Returns functions that each call the next one `calls` times."""
    made = []
    for i in range(length):
        names = ["a", *(f"m{j}" for j in range(calls - 1)), "b"]
        made.append(function(f"f{i}", [call(f"f{i + 1}", *pair) for pair in pairwise(names)]))
    return [*made, function(f"f{length}", [helper.make_node("Relu", ["a"], ["b"])])]


@pytest.mark.parametrize(
    ("functions", "error", "message"),
    [
        (chain(20, 2), LimitExceededError, "nodes"),
        (chain(5, 40), LimitExceededError, "nodes"),
        (chain(60, 1), LimitExceededError, "nesting"),
        (chain(60, 1)[::-1], LimitExceededError, "nesting"),
        ([function("f0", [call("f0", "a", "b")])], InvalidModelError, "call itself"),
        ([function("f0", [call("f1", "a", "b")]), function("f1", [call("f0", "a", "b")])], InvalidModelError, "itself"),
        ([leaky(), leaky()], InvalidModelError, "once"),
    ],
    ids=["doubling", "wide", "deep", "deep, listed backwards", "itself", "each other", "two of a name"],
)  # fmt: skip
def test_bombs_and_circles_are_refused(functions, error, message):
    with pytest.raises(error, match=message):
        backend.prepare(model([call("f0", "x", "y")], functions))


def test_every_call_deepens_though_its_size_is_known():
    """Calls from the innermost outwards, so that each function's size is known before it is met from farther out."""
    functions = chain(40, 1)
    nodes = [call(f"f{i}", "x", f"z{i}") for i in reversed(range(1, 41))] + [call("f0", "x", "y")]
    with pytest.raises(LimitExceededError, match="nesting"):
        backend.prepare(model(nodes, functions))


def test_an_inlined_model_counts_whole():
    proto = model([call("f0", "x", "y")], chain(3, 2))
    backend.prepare(proto, limits=Limits(nodes=38))
    with pytest.raises(LimitExceededError, match="nodes"):
        backend.prepare(proto, limits=Limits(nodes=20))


def test_attributes_by_reference_are_for_functions():
    node = referring("LeakyRelu", "alpha", "slope", "x", "y")
    with pytest.raises(InvalidModelError, match="by reference"):
        backend.prepare(model([node], []))


def test_it_is_onnx_that_made_these():
    onnx.checker.check_model(model([call("leaky", "x", "y")], [leaky(0.5)]))
