"""Sequence operators that ONNX's own suite has no case of, and sequences under jit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from onnx import helper

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.onnx import backend
from tests.models.onnx.helpers import assert_same, expected, info, whole

A, B = np.asarray([[1.0, 2.0]], np.float32), np.asarray([[3.0, 4.0]], np.float32)


def joined(attributes, erased=None):
    """A model that makes a sequence of `a`, `b` and `a`, takes one out and puts the others together."""
    position = [] if erased is None else ["at"]
    nodes = [
        *([helper.make_node("Constant", [], position, value_int=erased)] if position else []),
        helper.make_node("SequenceConstruct", ["a", "b", "a"], ["s"]),
        helper.make_node("SequenceErase", ["s", *position], ["t"]),
        helper.make_node("ConcatFromSequence", ["t"], ["y"], **attributes),
    ]
    inputs = [info("a", A), info("b", B)]
    return whole(helper.make_graph(nodes, "g", inputs, [helper.make_empty_tensor_value_info("y")]), 17)


@pytest.mark.parametrize("erased", [None, 0, 1, -1, -3])
@pytest.mark.parametrize("attributes", [{"axis": 1}, {"axis": -1, "new_axis": 1}])
def test_erase_and_concat(attributes, erased):
    proto = joined(attributes, erased)
    want = expected(proto, {"a": A, "b": B})
    rep = backend.prepare(proto)
    assert_same(tuple(rep.run([A, B])), want)
    assert_same(jax.jit(rep.model.apply)(rep.model.params, jnp.asarray(A), jnp.asarray(B)), want)


@pytest.mark.parametrize("erased", [3, -4])
def test_positions_lie_within(erased):
    with pytest.raises(InvalidInputError, match="position"):
        backend.run_model(joined({"axis": 0}, erased), [A, B])
