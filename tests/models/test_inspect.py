"""Descriptions count right; the check sees both agreement and disagreement, and hands no path to the runtime."""

import builtins
import dataclasses
import json
import os

import jax
import numpy as np
import pytest
from onnx import TensorProto, helper

from modeldiff_jax.errors import InvalidInputError, MissingExtraError, UnsafeModelError, UnsupportedModelError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.agreement import TOLERANCES, Tolerance, tolerance
from modeldiff_jax.models.callable import from_callable
from modeldiff_jax.models.inspect import check_against_runtime, describe, inspect_model
from modeldiff_jax.models.load import load
from modeldiff_jax.types import TensorSpec
from tests.helpers.onnx_graphs import branch, dense, external, model, node, tensor, value


@pytest.fixture
def dense_file(tmp_path):
    (tmp_path / "m.onnx").write_bytes(dense().SerializeToString())
    return tmp_path / "m.onnx"


def test_description_of_a_file(dense_file):
    result = describe(load(dense_file, limits=Limits(nodes=77)))
    assert result.operators == {"Add": 1, "MatMul": 1, "Relu": 1}
    assert (result.nodes_in_file, result.nodes) == (3, 3)
    assert (result.parameters, result.parameter_bytes) == (27, 108)
    assert result.inputs == ("x: float32[n, 8]",)
    assert result.outputs == ("y: float32[n, 3]",)
    assert result.opsets == {"ai.onnx": 17}
    assert result.limits["nodes"] == 77
    assert result.format == "onnx"
    assert len(result.sha256) == 64
    json.dumps(result.to_dict())


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
    result = describe(load(tmp_path / "m.onnx"))
    assert (result.nodes_in_file, result.nodes) == (4, 3)
    assert result.operators == {"Add": 1, "If": 1, "Sub": 1}


def test_description_of_a_bound_model(dense_file):
    bound = load(dense_file).bind(x=np.zeros((1, 8), np.float32))
    assert describe(bound).inputs == ()
    assert list(describe(bound).bound) == ["x"]


def test_description_of_a_callable():
    result = describe(from_callable(lambda x: x, TensorSpec("x", (1, 3), np.dtype(np.float32))))
    assert (result.nodes, result.parameters, result.opsets) == (0, 0, {})


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
    result = load(dense_file)
    wrong = dataclasses.replace(result, params=jax.tree.map(lambda w: w * 1.01, result.params))
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
    result = load(external_file)
    (tmp_path / "secret").write_bytes(bytes(32))
    (external_file.parent / "w.bin").unlink()
    os.link(tmp_path / "secret", external_file.parent / "w.bin")
    with pytest.raises(UnsafeModelError):
        check_against_runtime(external_file, result)


def test_the_runtime_sees_bytes_only(dense_file, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    calls = []
    original = onnxruntime.InferenceSession

    def session(data, *args, **kwargs):
        calls.append(type(data))
        return original(data, *args, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    check_against_runtime(dense_file, load(dense_file))
    assert calls == [bytes]


def test_what_the_runtime_refuses_is_our_error(tmp_path):
    proto = model([node("Relu", "x", "y")], [value("x", (8,))], [value("y", (8,))])
    result = load_bytes(tmp_path, proto)
    proto.graph.node[0].op_type = "Frobnicate"
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(UnsupportedModelError, match="reference runtime"):
        check_against_runtime(tmp_path / "m.onnx", result)


def load_bytes(tmp_path, proto):
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    return load(tmp_path / "m.onnx")


def test_without_onnxruntime_the_error_names_the_line_that_installs_it(dense_file, monkeypatch):
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.partition(".")[0] == "onnxruntime":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError) as caught:
        check_against_runtime(dense_file, load(dense_file))
    assert caught.value.fix == "pip install 'modeldiff-jax[check]'"


# The comparison


def checked(tmp_path, proto, inputs=None):
    result = load_bytes(tmp_path, proto)
    return check_against_runtime(tmp_path / "m.onnx", result, inputs)


@pytest.mark.parametrize("kept", [TensorProto.FLOAT16, TensorProto.FLOAT], ids=["float16 out", "cast at the end"])
def test_networks_in_float16_are_held_to_float16(tmp_path, kept):
    rng = np.random.default_rng(0)
    proto = model(
        [
            node("Cast", "x", "h", to=10),
            node("MatMul", "h w", "a"),
            node("Tanh", "a", "b"),
            node("Cast", "b", "y", to=kept),
        ],
        inputs=[value("x", ("n", 64))],
        outputs=[value("y", ("n", 32), kept)],
        initializers=[tensor("w", rng.standard_normal((64, 32)).astype(np.float16))],
    )
    check = checked(tmp_path, proto)
    (output,) = check.outputs
    assert check.agrees
    assert output.allowed == tolerance(np.float16).allowed(output.value_range)


def test_verdict_and_table_say_the_same(tmp_path, monkeypatch):
    proto = model([node("Sigmoid", "x", "y"), node("Relu", "x", "z")], outputs=[value("y"), value("z")])
    assert all(output.agrees for output in checked(tmp_path, proto).outputs)
    monkeypatch.setitem(TOLERANCES, "float32", Tolerance(-1.0, -1.0))
    check = checked(tmp_path, proto)
    assert not check.agrees
    assert [output.agrees for output in check.outputs] == [o.max_error <= o.allowed for o in check.outputs]


def test_a_list_of_dictionaries_by_label_is_compared_as_a_matrix(tmp_path):
    labels = ["zebra", "ant", "mole"]  # the runtime sorts them
    proto = model(
        [
            helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_strings=labels),
            node("Relu", "x", "z"),
        ],
        inputs=[value("x", (2, 3))],
        outputs=[helper.make_empty_tensor_value_info("y"), value("z", (2, 3))],
        domains=["ai.onnx.ml"],
    )
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    proto.graph.output[0].type.CopyFrom(kind)
    check = checked(tmp_path, proto)
    assert check.agrees
    assert [output.shape for output in check.outputs] == [(2, 3), (2, 3)]


def test_the_arrays_of_a_sequence_are_compared_one_by_one(tmp_path):
    proto = model(
        [node("SplitToSequence", "x", "y", axis=0)],
        inputs=[value("x", (2, 3))],
        outputs=[helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
    )
    check = checked(tmp_path, proto)
    assert check.agrees
    assert [(output.name, output.shape) for output in check.outputs] == [("y[0]", (1, 3)), ("y[1]", (1, 3))]


def test_quantised_networks_are_compared_with_what_the_file_says(tmp_path):
    """Graph optimisations fuse a product with the quantisers around it, and then round elsewhere."""
    rng = np.random.default_rng(0)
    names = {"s": np.float32(0.02), "zero": np.uint8(128), "w": rng.standard_normal((32, 16)).astype(np.float32)}
    proto = model(
        [
            node("QuantizeLinear", "x s zero", "q"),
            node("DequantizeLinear", "q s zero", "d"),
            node("MatMul", "d w", "p"),
            node("QuantizeLinear", "p s zero", "r"),
            node("DequantizeLinear", "r s zero", "y"),
        ],
        inputs=[value("x", ("n", 32))],
        outputs=[value("y", ("n", 16))],
        initializers=[tensor(name, array) for name, array in names.items()],
    )
    check = checked(tmp_path, proto)
    assert check.agrees
    assert check.runtime.endswith("without graph optimisations")


def test_integers_that_do_not_fit_are_refused(tmp_path):
    proto = model(
        [node("Neg", "x", "y")], [value("x", ("n",), TensorProto.INT32)], [value("y", ("n",), TensorProto.INT32)]
    )
    with pytest.raises(InvalidInputError, match="values from"):
        checked(tmp_path, proto, {"x": np.int64([2**40])})


def test_an_inspection_is_a_record_and_a_page(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(dense().SerializeToString())
    steps = []
    result = inspect_model(path, check=True, key=3, progress=lambda *step: steps.append(step))
    record = result.to_dict()
    assert (record["command"], record["key"], record["check"]["agrees"]) == ("convert", 3, True)
    assert "agrees with onnxruntime" in result.to_html()
    assert [(done, total) for _, done, total in steps] == [(0, 2), (1, 2)]
    assert inspect_model(path).check is None
