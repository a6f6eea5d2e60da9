"""Profiles of kernels, models and comparisons: complete records, readable traces, our errors."""

import gzip
import json
import xml.etree.ElementTree as ElementTree

import jax
import numpy as np
import pytest
from jsonschema import Draft202012Validator

import modeldiff_jax as md
from modeldiff_jax.errors import InvalidInputError, LimitExceededError, ModelDiffError
from modeldiff_jax.report.formats.json import schema, to_json
from tests.helpers.onnx_graphs import classifier

own_error = pytest.mark.types_unchecked("the error is the product's own")

VALIDATOR = Draft202012Validator(schema())
QUICK = {"seconds": 0.01}
FEATURES, WIDTH, CLASSES = 16, 32, 5
PER_SAMPLE = 2 * (FEATURES * WIDTH + WIDTH * CLASSES)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classifier(tmp_path / "a.onnx")
    classifier(tmp_path / "b.onnx", noise=0.05)
    return tmp_path


def valid(profile):
    record = json.loads(to_json(profile.to_dict()))
    VALIDATOR.validate(record)
    ElementTree.fromstring(profile.to_svg())
    assert "<svg" in profile.to_html()
    return record


def test_a_kernel():
    record = valid(md.profile("paired_distances", shape=(6, 50, 8), metric="euclidean", dtype="bfloat16", **QUICK))
    assert record["subject"]["options"] == {"shape": "6x50x8", "dtype": "bfloat16", "metric": "euclidean"}
    (row,) = record["programs"]
    assert row["inputs"] == ["bfloat16[6, 50, 8]"] * 2
    assert row["bytes"] == 2 * 2 * 6 * 50 * 8 + 4 * 6 * 50
    assert record["share"] == row["share"] > 0


@pytest.mark.parametrize("batch", [1, 6])
def test_a_model(files, batch):
    record = valid(md.profile("a.onnx", batch=batch, **QUICK))
    (row,) = record["programs"]
    products = {entry["name"]: entry["flops"] for entry in row["operators"]}
    assert products["dot_general"] == batch * PER_SAMPLE
    assert row["inputs"][0] == f"float32[{batch}, {FEATURES}]"
    assert record["subject"]["models"][0]["sha256"] == md.load("a.onnx").origin.sha256
    assert record["comparison"] is None


def test_a_comparison_counts_what_it_calls(files):
    plain = md.compare("a.onnx", "b.onnx", n_pairs=12, n_steps=3)
    profile = md.profile("a.onnx", "b.onnx", n_pairs=12, n_steps=3, **QUICK)
    record = valid(profile)
    assert record["comparison"]["similarity"] == pytest.approx(plain.similarity, abs=1e-6)
    assert [side["path"] for side in record["subject"]["models"]] == ["a.onnx", "b.onnx"]
    programs = {row["name"]: row for row in record["programs"]}
    assert len(programs) == len(record["programs"]) >= 2
    # gradients of three steps for the partners of 12 pairs, made on both sides, each with a forward and a backward pass
    assert record["flops"] > 2 * 12 * 3 * 2 * PER_SAMPLE
    assert record["flops"] == sum(row["calls"] * row["flops"] for row in record["programs"])
    assert record["seconds"]["total"] > record["seconds"]["compare"] > 0


def test_a_comparison_that_compiles_nothing():
    def black_box(scale):
        return md.from_callable(
            lambda x: np.stack([x.sum(1), scale * x[:, 0]], 1), md.TensorSpec("x", ("n", 4), np.dtype(np.float32))
        )

    seeds = np.random.default_rng(0).random((20, 4), np.float32)
    profile = md.profile(black_box(1), black_box(2), seeds=seeds, n_pairs=4, n_steps=2, **QUICK)
    record = valid(profile)
    assert record["subject"]["kind"] == "comparison"
    assert (profile.share is None) == (not record["programs"])


def test_a_trace_that_perfetto_and_xprof_read(tmp_path):
    profile = md.profile("cosine_similarity", shape=(8, 4), trace=tmp_path / "new" / "folder", **QUICK)
    record = valid(profile)
    files = {name.split(".", 1)[1]: tmp_path / "new" / "folder" / name for name in record["trace"]["files"]}
    assert set(files) == {"trace.json.gz", "xplane.pb"}
    trace = json.loads(gzip.decompress(files["trace.json.gz"].read_bytes()))
    complete = [event for event in trace["traceEvents"] if event.get("ph") == "X"]
    assert all({"pid", "tid", "ts", "dur", "name"} <= set(event) for event in complete)
    assert sum(event["name"] == "cosine_similarity" for event in complete) == 3
    assert b"cosine_similarity" in files["xplane.pb"].read_bytes()


def test_one_trace_at_a_time(tmp_path):
    with jax.profiler.trace(str(tmp_path / "other")), pytest.raises(ModelDiffError, match="One trace"):
        md.profile("cosine_similarity", shape=(8, 4), trace=tmp_path, **QUICK)


@pytest.mark.parametrize(
    ("arguments", "options", "rule"),
    [
        (("paired_distances", "a.onnx"), {}, "A kernel is profiled .* Got: other"),
        (("paired_distances",), {"batch": 2}, "A kernel is profiled .* Got: batch"),
        (("a.onnx",), {"metric": "cosine"}, "A model is profiled .* Got: metric"),
        (("a.onnx", "b.onnx"), {"metric": "cosine", "n_pairs": 3}, "A comparison is profiled .* Got: metric"),
        (("a.onnx", "b.onnx"), {"shape": (3, 4)}, "A comparison is profiled .* Got: shape"),
        (("a.onnx",), {"batch": 0}, "above 0"),
        (("a.onnx",), {"seconds": float("nan")}, "above 0"),
        (("paired_distances",), {"shape": (5, 5), "metric": "taste"}, "`metric` is one of"),
        (("paired_distances",), {"shape": (5,) * 2, "implementation": "magic"}, "`implementation`"),
        (("paired_distances",), {"shape": (5,)}, "sizes of"),
        (("no_such_kernel",), {}, "kernels are .*paired_distances"),
        (("./paired_distances",), {}, "a kernel's name, a model or its file"),
        pytest.param(
            (7,),
            {},
            "a kernel's name, a model or its file",
            marks=own_error,
        ),
        (("a.onnx", "missing.onnx"), {}, "a kernel's name, a model or its file"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(files, arguments, options, rule):
    with pytest.raises(ModelDiffError, match=rule):
        md.profile(*arguments, **{**QUICK, **options})


def test_a_trace_needs_a_folder(files):
    with pytest.raises(InvalidInputError, match="into a folder"):
        md.profile("paired_distances", shape=(5, 5), trace="a.onnx", **QUICK)


def test_too_much_memory_is_refused(files):
    with pytest.raises(LimitExceededError, match="at most 1,000 bytes"):
        md.profile("a.onnx", max_bytes=1000, **QUICK)


def test_a_black_box_is_no_program():
    model = md.from_callable(lambda x: x, md.TensorSpec("x", ("n", 4), np.dtype(np.float32)))
    with pytest.raises(InvalidInputError, match="compiled by JAX"):
        md.profile(model, **QUICK)
