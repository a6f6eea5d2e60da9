"""Descriptions count right; the check sees both agreement and disagreement, and hands no path to the runtime."""

import builtins
import dataclasses
import json
import os

import jax
import numpy as np
import pytest
from onnx import TensorProto

from modeldiff_jax.errors import InvalidInputError, MissingExtraError, UnsafeModelError, UnsupportedModelError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.callable import from_callable
from modeldiff_jax.models.inspect import check_against_runtime, compare_output, describe, inspect_model
from modeldiff_jax.models.load import load
from modeldiff_jax.types import TensorSpec
from tests.helpers.onnx_graphs import branch, dense, external, model, node, tensor, value


@pytest.fixture
def dense_file(tmp_path):
    (tmp_path / "m.onnx").write_bytes(dense().SerializeToString())
    return tmp_path / "m.onnx"


def test_description_of_a_file(dense_file):
    found = describe(load(dense_file, limits=Limits(nodes=77)))
    assert found.operators == {"Add": 1, "MatMul": 1, "Relu": 1}
    assert (found.nodes_in_file, found.nodes) == (3, 3)
    assert (found.parameters, found.parameter_bytes) == (27, 108)
    assert found.inputs == ("x: float32[n, 8]",)
    assert found.outputs == ("y: float32[n, 3]",)
    assert found.opsets == {"ai.onnx": 17}
    assert found.limits["nodes"] == 77
    assert found.format == "onnx"
    assert len(found.sha256) == 64
    json.dumps(found.to_dict())


def test_description_tells_what_folding_removed(tmp_path):
    proto = model(
        [
            node("Constant", "", "two", value_float=2.0),
            node("Mul", "w two", "w2"),
            node(
                "If",
                "t",
                "y",
                then_branch=branch([node("Add", "x w2", "a")], "a"),
                else_branch=branch([node("Sub", "x w2", "b")], "b"),
            ),
        ],
        [value("x", (4,)), value("t", (), TensorProto.BOOL)],
        initializers=[tensor("w", np.ones(4, np.float32))],
    )
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    found = describe(load(tmp_path / "m.onnx"))
    assert (found.nodes_in_file, found.nodes) == (4, 3)
    assert found.operators == {"Add": 1, "If": 1, "Sub": 1}


def test_description_of_a_bound_model(dense_file):
    bound = load(dense_file).bind(x=np.zeros((1, 8), np.float32))
    assert describe(bound).inputs == ()
    assert list(describe(bound).bound) == ["x"]


def test_description_of_a_callable():
    found = describe(from_callable(lambda x: x, TensorSpec("x", (1, 3), np.dtype(np.float32))))
    assert (found.nodes, found.parameters, found.opsets) == (0, 0, {})


# The check


def test_agreement(dense_file):
    check = check_against_runtime(dense_file, load(dense_file))
    assert check.agrees
    assert [output.name for output in check.outputs] == ["y"]
    assert check.outputs[0].share < 1e-5
    assert check.compile_seconds > 0
    assert check.ratio == check.run_seconds / check.runtime_seconds
    assert check.runtime.startswith("onnxruntime ")
    json.dumps(check.to_dict())


def test_disagreement(dense_file):
    found = load(dense_file)
    wrong = dataclasses.replace(found, params=jax.tree.map(lambda w: w * 1.01, found.params))
    check = check_against_runtime(dense_file, wrong)
    assert not check.agrees
    assert 1e-3 < check.outputs[0].share < 1


def test_given_inputs_are_used(dense_file):
    inputs = {"x": np.linspace(-1, 1, 40, dtype=np.float32).reshape(5, 8)}
    check = check_against_runtime(dense_file, load(dense_file), inputs)
    assert check.inputs == {"x": (5, 8)}
    assert check.agrees


@pytest.mark.parametrize(
    "inputs", [{}, {"z": np.zeros((1, 8))}, {"x": np.zeros((1, 9))}, {"x": np.zeros((1, 8)), "y": np.zeros(1)}]
)
def test_inputs_that_do_not_fit_are_refused(dense_file, inputs):
    with pytest.raises(InvalidInputError):
        check_against_runtime(dense_file, load(dense_file), inputs)


def test_scalars_are_bound(tmp_path):
    proto = model(
        [node("Range", "zero n one", "r"), node("Add", "x r", "y")],
        [value("x", ("k",), TensorProto.INT64), value("n", (), TensorProto.INT64)],
        [value("y", ("k",), TensorProto.INT64)],
        [tensor("zero", np.int64(0)), tensor("one", np.int64(1))],
    )
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    inputs = {"x": np.arange(4), "n": np.int64(4)}
    check = check_against_runtime(tmp_path / "m.onnx", load(tmp_path / "m.onnx"), inputs)
    assert check.bound == {"n": 4}
    assert check.outputs[0].max_error == 0


@pytest.fixture
def external_file(tmp_path):
    """A model with its weights beside it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").write_bytes(np.arange(8, dtype="<f4").tobytes())
    proto = model([node("Mul", "x w", "y")], [value("x", (8,))], [value("y", (8,))], [external("w", (8,), "w.bin")])
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    return folder / "m.onnx"


def test_external_data_reach_the_runtime(external_file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # nothing is found relative to the working folder
    assert check_against_runtime(external_file, load(external_file)).agrees


def test_links_made_after_loading_are_refused_too(external_file, tmp_path):
    found = load(external_file)
    (tmp_path / "secret").write_bytes(bytes(32))
    (external_file.parent / "w.bin").unlink()
    os.link(tmp_path / "secret", external_file.parent / "w.bin")
    with pytest.raises(UnsafeModelError):
        check_against_runtime(external_file, found)


def test_the_runtime_sees_bytes_only(dense_file, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    seen = []
    original = onnxruntime.InferenceSession

    def session(data, *args, **kwargs):
        seen.append(type(data))
        return original(data, *args, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    check_against_runtime(dense_file, load(dense_file))
    assert seen == [bytes]


def test_what_the_runtime_refuses_is_our_error(tmp_path):
    proto = model([node("Relu", "x", "y")], [value("x", (8,))], [value("y", (8,))])
    found = load_bytes(tmp_path, proto)
    proto.graph.node[0].op_type = "Frobnicate"
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(UnsupportedModelError, match="reference runtime"):
        check_against_runtime(tmp_path / "m.onnx", found)


def load_bytes(tmp_path, proto):
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    return load(tmp_path / "m.onnx")


def test_without_onnxruntime_the_line_that_installs_it_is_told(dense_file, monkeypatch):
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.partition(".")[0] == "onnxruntime":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError) as caught:
        check_against_runtime(dense_file, load(dense_file))
    assert caught.value.fix == "pip install 'modeldiff-jax[check]'"


# The measure


@pytest.mark.parametrize(
    ("ours", "theirs", "error", "span"),
    [
        ([0.0, 1.0], [0.0, 2.0], 1.0, 2.0),
        ([3.0, 3.0], [3.5, 3.5], 0.5, 3.5),
        ([0.0, 0.5], [0.0, 0.0], 0.5, 1.0),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0, 1.0),
        ([np.inf, 1.0, 2.0], [np.inf, 1.0, 2.0], 0.0, 1.0),
        ([np.nan, 1.0, 2.0], [0.0, 1.0, 2.0], np.inf, 2.0),
        ([1.0, 1.0, 2.0], [np.inf, 1.0, 2.0], np.inf, 1.0),
        ([-np.inf, 1.0, 2.0], [np.inf, 1.0, 2.0], np.inf, 1.0),
        ([1.0], [1.0, 2.0], np.inf, 1.0),
        ([], [], 0.0, 1.0),
        ([True, False], [True, True], 1.0, 1.0),
    ],
)
def test_error_and_range(ours, theirs, error, span):
    check = compare_output("y", np.array(ours), np.array(theirs))
    assert (check.max_error, check.value_range) == (error, span)
    assert check.share == error / span


def test_an_inspection_is_a_record_and_a_page(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(dense().SerializeToString())
    steps = []
    found = inspect_model(path, check=True, key=3, progress=lambda *step: steps.append(step))
    record = found.to_dict()
    assert (record["command"], record["key"], record["check"]["agrees"]) == ("convert", 3, True)
    assert "agrees with onnxruntime" in found.to_html()
    assert [(done, total) for _, done, total in steps] == [(0, 2), (1, 2)]
    assert inspect_model(path).check is None
