"""Folding: nodes that depend on no input are computed once, and the other nodes read parameters."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from modeldiff_jax.errors import InvalidModelError, LimitExceededError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.convert import to_model
from modeldiff_jax.models.graph.passes.fold import fold
from modeldiff_jax.models.model import Origin
from modeldiff_jax.models.onnx import read_graph
from tests.helpers.onnx_graphs import branch, dense, model, node, tensor, value

WEIGHTS = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)


def folded(proto, limits=DEFAULT):
    return fold(read_graph(proto.SerializeToString()), limits)


def loaded(proto, limits=DEFAULT):
    return to_model(read_graph(proto.SerializeToString()), Origin("m", "onnx"), limits)


def scaled_transposed():
    """y = x @ transpose(2 w) reshaped by the batch size."""
    return model(
        [
            node("Mul", "w two", "w2"),
            node("Transpose", "w2", "wt", perm=[1, 0]),
            node("MatMul", "x wt", "h"),
            node("Shape", "x", "s"),
            helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
            node("Concat", "n minus", "target", axis=0),
            node("Reshape", "h target", "y"),
        ],
        [value("x", ("n", 6))],
        [value("y", ("n", 8))],
        [
            tensor("w", WEIGHTS),
            tensor("two", np.float32(2)),
            tensor("zero", np.int64([0])),
            tensor("minus", np.int64([-1])),
        ],
    )


def test_input_independent_nodes_are_gone_and_their_value_is_a_parameter():
    program = folded(scaled_transposed())
    assert [n.op for n in program.graph.nodes] == ["MatMul", "Shape", "Gather", "Concat", "Reshape"]
    assert set(program.params) == {"wt"}
    np.testing.assert_array_equal(program.params["wt"], 2 * WEIGHTS.T)


def test_small_integers_stay_static():
    assert set(folded(scaled_transposed()).graph.constants) == {"zero", "minus"}


def test_folding_keeps_the_function():
    x = np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32)
    np.testing.assert_allclose(loaded(scaled_transposed())(x), x @ (2 * WEIGHTS.T), rtol=1e-5, atol=1e-6)


def test_what_a_static_input_needs_stays_static_however_large():
    sizes = np.arange(5000)
    proto = model(
        [node("Gather", "table i", "k"), node("Cast", "k", "k64", to=TensorProto.INT64), node("Expand", "x k64", "y")],
        [value("x", (1,)), value("i", (1,), TensorProto.INT64)],
        initializers=[tensor("table", sizes.astype(np.float32))],
    )
    program = folded(proto)
    assert set(program.graph.constants) == {"table"}
    assert not program.params


def test_shape_readers_need_no_static_values():
    proto = model(
        [node("Mul", "x w", "h"), node("Shape", "h", "s"), node("Expand", "one s", "y")],
        [value("x", (8, 6))],
        initializers=[tensor("w", WEIGHTS), tensor("one", np.ones((1, 1), np.float32))],
    )
    assert set(folded(proto).params) == {"w"}


def test_nested_graphs_fold_too():
    deep = branch([node("Mul", "w two", "w2"), node("MatMul", "x w2", "a")], "a")
    flat = branch([node("Identity", "x", "b")], "b")
    proto = model(
        [node("If", "t", "y", then_branch=deep, else_branch=flat)],
        [value("x", (3, 8)), value("t", (), TensorProto.BOOL)],
        initializers=[tensor("w", WEIGHTS), tensor("two", np.float32(2))],
    )
    program = folded(proto)
    assert [n.op for n in program.graph.nodes[0].subgraphs["then_branch"].nodes] == ["MatMul"]
    np.testing.assert_array_equal(next(iter(program.params.values())), 2 * WEIGHTS)


def test_dead_constants_are_dropped():
    proto = dense()
    proto.graph.initializer.append(tensor("unused", WEIGHTS))
    program = folded(proto)
    assert "unused" not in {*program.params, *program.graph.constants}


def test_constants_that_do_not_fit_are_the_files_fault():
    proto = model([node("MatMul", "w w", "h"), node("Mul", "x h", "y")], initializers=[tensor("w", WEIGHTS)])
    with pytest.raises(InvalidModelError, match="MatMul"):
        folded(proto)


def test_growth_is_seen_before_it_happens():
    row = tensor("a", np.zeros((2**15, 1), np.float32)), tensor("b", np.zeros((1, 2**16), np.float32))
    with pytest.raises(LimitExceededError, match="folded_bytes"):
        folded(model([node("Add", "a b", "y")], [], initializers=row))


def test_large_inputs_that_make_little_are_no_growth():
    a = tensor("a", np.zeros((2**12, 8), np.float32)), tensor("b", np.zeros((8, 2**4), np.float32))
    program = folded(
        model([node("MatMul", "a b", "h"), node("Mul", "x h", "y")], initializers=a),
        Limits(folded_bytes=2**12 * 2**4 * 4),
    )
    assert program.params["h"].shape == (2**12, 2**4)


def test_models_of_one_graph_share_one_function_and_others_do_not():
    one, same = loaded(dense()), loaded(dense())
    other_weights = dense()
    other_weights.graph.initializer[0].CopyFrom(tensor("w", 2 * WEIGHTS[:, :3]))
    other_graph = dense()
    other_graph.graph.node[2].op_type = "Tanh"
    assert one.apply is same.apply
    assert one.apply is loaded(other_weights).apply
    assert one.apply is not loaded(other_graph).apply
    assert one.apply is not loaded(dense(), Limits(nodes=10)).apply


def test_conversion_holds_both_graphs():
    conversion = loaded(scaled_transposed()).conversion
    assert len(conversion.source.nodes) == 7
    assert len(conversion.folded.nodes) == 5
    assert not conversion.source.constants
