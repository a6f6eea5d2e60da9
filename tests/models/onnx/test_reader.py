"""ONNX bytes -> graph: graphs that are read, and files that are refused with which error."""

import numpy as np
import pytest
from onnx import AttributeProto, TensorProto, helper

from modeldiff_jax.errors import InvalidModelError, LimitExceededError, UnsupportedModelError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.onnx.reader import read_graph
from modeldiff_jax.types import ANY
from tests.helpers.onnx_graphs import branch, dense, model, node, tensor, value


def read(proto, limits=DEFAULT):
    return read_graph(proto.SerializeToString(), limits=limits)


# Graphs that are read


def test_nodes_specs_and_constants():
    graph = read(dense())
    assert [n.op for n in graph.nodes] == ["MatMul", "Add", "Relu"]
    assert [str(spec) for spec in graph.inputs] == ["x: float32[n, 8]"]
    assert [str(spec) for spec in graph.outputs] == ["y: float32[n, 3]"]
    assert graph.versions == {"ai.onnx": 17}
    np.testing.assert_array_equal(graph.constants["b"], np.float32([0.1, 0.2, 0.3]))


def test_initializers_listed_as_inputs_are_constants():
    proto = model([node("Add", "x w", "y")], [value("x"), value("w")], initializers=[tensor("w", np.float32([1]))])
    assert [spec.name for spec in read(proto).inputs] == ["x"]


def test_domain_ai_onnx_is_the_default_one():
    proto = model([node("Relu", "x", "y", domain="ai.onnx")])
    proto.opset_import[0].domain = "ai.onnx"
    graph = read(proto)
    assert graph.nodes[0].domain == "ai.onnx"
    assert graph.versions == {"ai.onnx": 17}


def test_dimensions_without_name_or_size_are_any():
    proto = model([node("Relu", "x", "y")], [value("x", (None, "", "w", 3))])
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert read(proto).inputs[0].shape == (ANY, ANY, "w", 3)


def test_omitted_inputs_and_outputs_are_empty_names():
    clip = helper.make_node("Clip", ["x", "", "hi"], ["y"])
    graph = read(model([clip], initializers=[tensor("hi", np.float32(1))]))
    assert graph.nodes[0].inputs == ("x", "", "hi")


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"value": tensor("t", np.int8([[1, 2]]))}, np.int8([[1, 2]])),
        ({"value_float": 0.5}, np.float32(0.5)),
        ({"value_floats": [0.5, 1.0]}, np.float32([0.5, 1])),
        ({"value_int": 2**40}, np.int64(2**40)),
        ({"value_ints": [1, 2]}, np.int64([1, 2])),
        ({"value_string": "a"}, np.array("a", object)),
        ({"value_strings": ["a", "b"]}, np.array(["a", "b"], object)),
    ],
)
def test_constant_nodes_become_constants(attributes, expected):
    graph = read(model([node("Constant", "", "c", **attributes), node("Identity", "x", "y")]))
    assert [n.op for n in graph.nodes] == ["Identity"]
    assert graph.constants["c"].dtype == expected.dtype
    np.testing.assert_array_equal(graph.constants["c"], expected)


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        (1.5, 1.5),
        (3, 3),
        ("a", "a"),
        ([1.5, 2.5], (1.5, 2.5)),
        ([1, 2], (1, 2)),
        (["a", "b"], ("a", "b")),
    ],
)
def test_attributes(attribute, expected):
    assert read(model([node("Relu", "x", "y", a=attribute)])).nodes[0].attributes == {"a": expected}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.uint8, np.bool_, np.complex64, np.float64])
@pytest.mark.parametrize("raw", [True, False])
def test_tensors_in_either_encoding(dtype, raw):
    array = np.array([[0, 1, 2], [1, 0, 3]]).astype(dtype)
    flat = array.ravel()
    proto = (
        tensor("w", array)
        if raw
        else helper.make_tensor("w", helper.np_dtype_to_tensor_dtype(flat.dtype), array.shape, flat)
    )
    read_back = read(model([node("Identity", "w", "y")], [], initializers=[proto])).constants["w"]
    assert read_back.dtype == array.dtype
    np.testing.assert_array_equal(read_back, array)


# Names


def test_equal_names_in_sibling_branches_are_different_values():
    one = branch([node("Constant", "", "c", value_float=1.0)], "c")
    two = branch([node("Constant", "", "c", value_float=2.0)], "c")
    proto = model(
        [node("If", "t", "y", then_branch=one, else_branch=two)], [value("t", (), TensorProto.BOOL)], [value("y", ())]
    )
    graph = read(proto)
    inner = graph.nodes[0].subgraphs
    assert graph.constants[inner["then_branch"].outputs[0].name] == 1
    assert graph.constants[inner["else_branch"].outputs[0].name] == 2


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_name_that_looks_like_a_nested_one_is_another_value(where):
    nested = branch([node("Constant", "", "c", value_float=1.0)], "c")
    choice = node("If", "t", "z", then_branch=nested, else_branch=nested)
    outer = node("Constant", "", "1/c", value_float=5.0)
    last = helper.make_node("Add", ["z", "1/c"], ["y"])
    nodes = [outer, choice, last] if where == "before" else [choice, outer, last]
    graph = read(model(nodes, [value("t", (), TensorProto.BOOL)], [value("y", ())]))
    add = graph.nodes[-1]
    inner = graph.nodes[0].subgraphs["then_branch"].outputs[0].name
    assert graph.constants[add.inputs[1]] == 5
    assert graph.constants[inner] == 1
    assert inner != add.inputs[1]


# Files that are refused


def broken(change):
    """`dense()` after `change`."""
    proto = dense()
    change(proto)
    return proto


def edit(path, entry):
    """A change that sets the field at `path`, dots and indices, to `entry`."""

    def change(proto):
        *way, last = path.split(".")
        for step in way:
            proto = proto[int(step)] if step.isdigit() else getattr(proto, step)
        if isinstance(entry, list):
            getattr(proto, last)[:] = entry
        else:
            setattr(proto, last, entry)

    return change


INVALID = {
    "no graph": lambda p: p.ClearField("graph"),
    "no outputs": lambda p: p.graph.ClearField("output"),
    "no opset": lambda p: p.ClearField("opset_import"),
    "undefined input": edit("graph.node.0.input", ["x", "nowhere"]),
    "undefined output": edit("graph.output.0.name", "nowhere"),
    "computed from itself": edit("graph.node.0.input", ["x", "y"]),
    "output computed twice": edit("graph.node.1.output", ["h"]),
    "output named as an input": edit("graph.node.0.output", ["x"]),
    "initializer twice": lambda p: p.graph.initializer.append(p.graph.initializer[0]),
    "input twice": lambda p: p.graph.input.append(p.graph.input[0]),
    "initializer without a name": edit("graph.initializer.0.name", ""),
    "input without a name": edit("graph.input.0.name", ""),
    "negative size": edit("graph.initializer.0.dims", [-8, -3]),
    "one negative size": edit("graph.initializer.0.dims", [8, -3]),
    "too few bytes": edit("graph.initializer.0.raw_data", b"\0" * 95),
    "too many bytes": edit("graph.initializer.0.raw_data", b"\0" * 97),
    "sizes beyond the bytes": edit("graph.initializer.0.dims", [8, 300]),
    "no data": lambda p: p.graph.initializer[0].ClearField("raw_data"),
    "unknown element type": edit("graph.initializer.0.data_type", 999),
    "no element type": edit("graph.initializer.0.data_type", 0),
    "other element type": edit("graph.initializer.0.data_type", TensorProto.DOUBLE),
    "too few strings": edit("graph.initializer.0.data_type", TensorProto.STRING),
    "65 axes": edit("graph.initializer.0.dims", [1] * 65),
    "unknown input type": edit("graph.input.0.type.tensor_type.elem_type", 999),
}


@pytest.mark.parametrize("change", INVALID.values(), ids=INVALID.keys())
def test_inconsistent_files_are_invalid(change):
    with pytest.raises(InvalidModelError) as caught:
        read(broken(change))
    assert caught.value.got
    assert caught.value.where


@pytest.mark.parametrize("size", [0, 1])
def test_empty_tensors_with_impossible_other_sizes_are_refused(size):
    proto = broken(edit("graph.initializer.0.dims", [0, 2**62, 2**62]))
    proto.graph.initializer[0].raw_data = b"\0" * size
    with pytest.raises((InvalidModelError, LimitExceededError)):
        read(proto)


def duplicate_attribute(proto):
    proto.graph.node[0].attribute.extend([helper.make_attribute("a", 1), helper.make_attribute("a", 2)])


def referenced_attribute(proto):
    proto.graph.node[0].attribute.add(name="a", ref_attr_name="b", type=AttributeProto.INT)


def ill_typed_constant(name, entry):
    def change(proto):
        proto.graph.node.insert(0, node("Constant", "", "c", **{name: entry}))

    return change


def constant_without_value(proto):
    proto.graph.node.insert(0, node("Constant", "", "c"))


@pytest.mark.parametrize("change", [duplicate_attribute, referenced_attribute, constant_without_value])
def test_ill_formed_attributes_are_invalid(change):
    with pytest.raises(InvalidModelError):
        read(broken(change))


def odd_attribute(kind):
    def change(proto):
        proto.graph.node[0].attribute.add(name="a", type=kind)

    return change


UNSUPPORTED = {
    "attribute of a sparse tensor": odd_attribute(AttributeProto.SPARSE_TENSOR),
    "attribute of graphs": odd_attribute(AttributeProto.GRAPHS),
    "attribute of tensors": odd_attribute(AttributeProto.TENSORS),
    "attribute without a type": odd_attribute(AttributeProto.UNDEFINED),
    "constant of another type": ill_typed_constant("value_float", "abc"),
    "constant of many": ill_typed_constant("value_int", [1, 2]),
    "constant of a graph": ill_typed_constant("value", branch([node("Constant", "", "d", value_int=1)], "d")),
    "constant under another name": ill_typed_constant("values", 1),
    "sparse initializer": lambda p: p.graph.sparse_initializer.add(),
    "input of unknown rank": lambda p: p.graph.input[0].type.tensor_type.ClearField("shape"),
}


@pytest.mark.parametrize("change", UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_parts_of_onnx_we_do_not_have_are_unsupported(change):
    proto = broken(change)
    with pytest.raises(UnsupportedModelError) as caught:
        read(proto)
    assert caught.value.got
    assert caught.value.where


def nested_ifs(depth):
    """An If in an If in an If ..., built in place: onnx's helpers copy, and cannot copy anything this deep."""
    proto = model([], [value("x"), value("t", (), TensorProto.BOOL)], [value("y0")])
    graph = proto.graph
    for i in range(depth):
        choice = graph.node.add(op_type="If", input=["t"], output=[f"y{i}"])
        graph = choice.attribute.add(name="then_branch", type=AttributeProto.GRAPH).g
        graph.output.add(name=f"y{i + 1}")
    graph.node.add(op_type="Identity", input=["x"], output=[f"y{depth}"])
    return proto


def test_nesting_is_bounded():
    assert len(list(read(nested_ifs(24)).walk())) == 25
    with pytest.raises(LimitExceededError, match="nesting"):
        read(nested_ifs(25))


@pytest.mark.parametrize("depth", [40, 400])
def test_nesting_beyond_the_parser_is_invalid(depth):
    with pytest.raises(InvalidModelError):
        read(nested_ifs(depth))


@pytest.mark.parametrize(
    ("name", "bound"), [("model_bytes", 100), ("nodes", 2), ("tensor_elements", 23), ("nesting", 0)]
)
def test_each_limit_is_applied_and_named(name, bound):
    nested = branch([node("Identity", "y0", "z")], "z")
    proto = dense()
    proto.graph.node[2].output[:] = ["y0"]
    proto.graph.input.append(value("t", (), TensorProto.BOOL))
    proto.graph.node.append(node("If", "t", "y", then_branch=nested, else_branch=nested))
    read(proto)
    with pytest.raises(LimitExceededError, match=f"`{name}` is {bound}") as caught:
        read(proto, Limits(**{name: bound}))
    assert f"Limits({name}=...)" in caught.value.fix


@pytest.mark.parametrize("name", ["model_bytes", "nodes", "tensor_elements", "nesting"])
def test_limits_are_inclusive(name):
    proto = dense()
    size = {"model_bytes": proto.ByteSize(), "nodes": 3, "tensor_elements": 24, "nesting": 0}[name]
    assert len(read(proto, Limits(**{name: size})).nodes) == 3
