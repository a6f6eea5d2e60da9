"""Models measured in a child process: results equal those of this process, and harmful models are left out."""

import numpy as np
import pytest
from onnx import TensorProto, helper

import modeldiff_jax as md
from modeldiff_jax.detection.isolated import IsolatedMeasurer
from modeldiff_jax.detection.measurement import measure, pack, unpack
from modeldiff_jax.detection.settings import Settings
from modeldiff_jax.errors import InvalidInputError, InvalidModelError, LimitExceededError
from modeldiff_jax.probes.adapt import adapt
from tests.helpers.jax_models import mlp
from tests.helpers.onnx_graphs import model, node, tensor, value

N = 24


def dense(seed, classes=4):
    """x (n, 8) -> tanh(x a) b."""
    rng = np.random.default_rng(seed)
    weights = {"a": rng.normal(size=(8, 16)), "b": rng.normal(size=(16, classes))}
    return model(
        [node("MatMul", "x a", "h"), node("Tanh", "h", "t"), node("MatMul", "t b", "y")],
        [value("x", ("n", 8))],
        [value("y", ("n", classes))],
        [tensor(name, array.astype(np.float32)) for name, array in weights.items()],
    )


def endless():
    """As many matrix products as a loop may have trips, which takes hours."""
    body = helper.make_graph(
        [node("Identity", "c", "on"), node("MatMul", "s w", "next")],
        "body",
        [value("i", (), TensorProto.INT64), value("c", (), TensorProto.BOOL), value("s", (256, 256))],
        [value("on", (), TensorProto.BOOL), value("next", (256, 256))],
    )
    nodes = [
        node("ReduceSum", "x", "q", keepdims=1),
        node("Expand", "q shape", "e"),
        helper.make_node("Loop", ["trips", "go", "e"], ["l"], body=body),
        node("ReduceMax", "l", "m", keepdims=1),
        node("Expand", "m wide", "y"),
    ]
    constants = {
        "shape": np.int64([256, 256]),
        "wide": np.int64([1, 4]),
        "trips": np.int64(100_000),
        "go": np.array(True),
        "w": np.eye(256, dtype=np.float32),
    }
    initializers = [tensor(name, array) for name, array in constants.items()]
    return model(nodes, [value("x", (1, 8))], [value("y", (1, 4))], initializers)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models a, b, c; a file that is not a model; one that runs for hours."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate("abc"):
        (folder / name).write_bytes(dense(seed).SerializeToString())
    (folder / "text").write_text("no model")
    (folder / "endless").write_bytes(endless().SerializeToString())
    return folder


@pytest.fixture(scope="module")
def probes(folder):
    return md.make_probes(md.load(folder / "a"), n_pairs=N, n_steps=2)


@pytest.fixture(scope="module")
def measurer(probes):
    """One child for all tests here: it takes seconds to start."""
    isolated = IsolatedMeasurer(probes, Settings(limits=md.Limits(process_seconds=30)), 4)
    yield isolated
    isolated.close()


def assert_same(a, b):
    np.testing.assert_array_equal(a.ddv, b.ddv)
    np.testing.assert_array_equal(a.reactions.seeds, b.reactions.seeds)
    np.testing.assert_array_equal(a.reactions.partners, b.reactions.partners)
    assert a.ddv.probe_set_id == b.ddv.probe_set_id
    for name in ("model", "weights_sha256", "inferred_access", "adaptations", "queries"):
        assert getattr(a, name) == getattr(b, name), name


def test_a_measurement_survives_packing(folder, probes):
    measured = measure(adapt(md.load(folder / "b"), probes.space), probes)
    assert_same(unpack(pack(measured)), measured)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", pack])
def test_bytes_that_are_not_a_whole_measurement_are_refused(content, folder, probes):
    if callable(content):
        content = pack(measure(adapt(md.load(folder / "b"), probes.space), probes))[:-100]
    with pytest.raises(InvalidInputError, match="whole"):
        unpack(content)


@pytest.mark.parametrize("name", ["b", "c"])
def test_the_child_measures_as_this_process_does(measurer, folder, probes, name):
    assert_same(measurer.measure(folder / name), measure(adapt(md.load(folder / name), probes.space), probes))


def test_errors_of_the_child_are_errors_here(measurer, folder):
    with pytest.raises(InvalidModelError, match="known format") as caught:
        measurer.measure(folder / "text")
    assert str(folder / "text") in caught.value.where
    assert measurer.measure(folder / "b").origin.path == str(folder / "b")


def test_a_model_that_runs_for_hours_is_named_and_the_others_are_screened(folder, probes):
    screening = md.screen(
        folder / "a",
        [folder / "endless", folder / "a", folder / "b"],
        probes=probes,
        limits=md.Limits(process_seconds=8),
    )
    assert [failure.path for failure in screening.failures] == [str(folder / "endless")]
    assert isinstance(screening.failures[0].error, LimitExceededError)
    assert "process_seconds" in screening.failures[0].error.rule
    assert [finding.verdict for finding in screening.findings] == ["reused", "inconclusive"]


def test_models_that_are_not_files_stay_in_this_process():
    settings = {"n_pairs": N, "n_steps": 2, "isolate": True}
    assert md.screen(mlp(0), [mlp(1)], **settings).findings[0].verdict == "inconclusive"
