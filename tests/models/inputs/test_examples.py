"""Random inputs are of the right shape, type and range, and the same for the same key."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from modeldiff_jax.models.inputs.examples import example_inputs
from modeldiff_jax.models.inputs.vocabulary import vocabulary
from modeldiff_jax.models.load import load
from modeldiff_jax.models.model import Model, Origin
from modeldiff_jax.types import TensorSpec
from tests.helpers.onnx_graphs import model, node, tensor, value

FLOAT, INT, BOOL = np.dtype(np.float32), np.dtype(np.int64), np.dtype(bool)


def accepting(*inputs):
    return Model(lambda _, *xs: xs, {}, tuple(TensorSpec(*entry) for entry in inputs), (), Origin("m", "callable"))


def made(*inputs, **options):
    return example_inputs(accepting(*inputs), **options).inputs


def test_shapes_and_dtypes_are_the_declared_ones():
    inputs = made(
        ("x", ("b", 3, 8, 8), FLOAT), ("half", (4,), np.dtype(np.float16)), ("n", (2,), np.dtype(np.int8)), batch=5
    )
    assert {name: (x.shape, x.dtype.name) for name, x in inputs.items()} == {
        "x": ((5, 3, 8, 8), "float32"),
        "half": ((4,), "float16"),
        "n": ((2,), "int8"),
    }


@pytest.mark.parametrize(("shape", "low"), [((1, 3, 32, 32), 0), ((1, 4096), -1), ((1, 64, 64), -1)])
def test_floats_fill_their_range(shape, low):
    x = made(("x", shape, FLOAT))["x"]
    assert low <= x.min() < low + 0.1
    assert 0.9 < x.max() <= 1


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("attention_mask", INT, 1),
        ("mask", BOOL, 1),
        ("token_type_ids", INT, 0),
        ("lengths", INT, 64),
        ("state", FLOAT, 0),
    ],
)
def test_inputs_with_one_sensible_value(name, dtype, expected):
    shape = (1,) if name == "lengths" else (1, 64)
    assert set(made(("ids", (1, 64), INT), (name, shape, dtype))[name].ravel().tolist()) == {expected}


def test_the_key_decides_the_values():
    one, same, other = (made(("x", (4, 4), FLOAT), key=key)["x"] for key in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_integers_without_a_table_are_bytes():
    x = made(("x", (1, 4096), INT))["x"]
    assert x.min() == 0
    assert x.max() == 255


def embedding(rows, via=()):
    """ids -> `via` operators -> rows of a table."""
    names = ["ids", *(f"h{i}" for i in range(len(via)))]
    nodes = [
        helper.make_node(op, [a], [b], **kwargs) for (op, kwargs), a, b in zip(via, names, names[1:], strict=False)
    ]
    nodes.append(helper.make_node("Gather", ["table", names[-1]], ["y"]))
    table = tensor("table", np.random.default_rng(0).standard_normal((rows, 8)).astype(np.float32))
    return model(nodes, [value("ids", ("b", 16), TensorProto.INT64)], initializers=[table])


def loaded(tmp_path, proto):
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    return load(tmp_path / "m.onnx")


@pytest.mark.parametrize("via", [(), (("Cast", {"to": TensorProto.INT32}),), (("Identity", {}), ("Flatten", {}))])
@pytest.mark.parametrize("rows", [5, 3000])
def test_the_vocabulary_is_read_off_the_table(tmp_path, rows, via):
    result = loaded(tmp_path, embedding(rows, via))
    assert vocabulary(result, "ids") == rows
    ids = example_inputs(result, batch=200).inputs["ids"]
    assert 0.9 * rows - 1 < ids.max() < rows


def test_the_vocabulary_of_one_hot_is_its_depth(tmp_path):
    constants = [tensor("depth", np.int64(11)), tensor("values", np.float32([0, 1]))]
    proto = model(
        [node("OneHot", "ids depth values", "y")], [value("ids", ("b",), TensorProto.INT64)], initializers=constants
    )
    assert vocabulary(loaded(tmp_path, proto), "ids") == 11


def test_models_without_a_graph_or_a_table_have_no_known_vocabulary(tmp_path):
    assert vocabulary(accepting(("x", (3,), INT)), "x") is None
    assert vocabulary(loaded(tmp_path, model([node("Relu", "x", "y")])), "x") is None
