"""Transformers exported from PyTorch: equal to PyTorch and to onnxruntime at every batch, length and cache size."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from modeldiff_jax.models.load import load
from tests.models.onnx.exported.inputs import EXPORTED_AT, FIXED, SIZES, example, stepwise
from tests.models.onnx.helpers import convert, expected

FOLDER = Path(__file__).parent / "exported"
FILES = sorted(FOLDER.glob("*.onnx"))
CACHED = [file for file in FILES if file.name.startswith(("gpt", "llama"))]
QUICK = {"gpt-script-17", "llama-dynamo-23", "bert-dynamo-23", "vit-dynamo-22"}
TOLERANCE = 1e-4  # of the outputs' range


def assert_near(got, want):
    """Equal shapes, and values within a share of the range."""
    got = got if isinstance(got, (tuple, list)) else (got,)
    assert [np.shape(part) for part in got] == [np.shape(part) for part in want]
    for output, expected_value in zip(got, want, strict=True):
        np.testing.assert_allclose(output, expected_value, rtol=0, atol=TOLERANCE * max(np.ptp(expected_value), 1e-3))


def oracle(name, opset, proto, feeds):
    """What onnxruntime gives, or onnx's own evaluator where onnxruntime does not know the operator's definition."""
    if name == "bert" and opset >= 23:  # its Attention does not broadcast the mask's axis of queries
        return ReferenceEvaluator(proto).run(None, feeds)
    return expected(proto, feeds)


def sizes_of(name, exporter):
    return (EXPORTED_AT,) if (name, exporter) in FIXED else (EXPORTED_AT, *SIZES)


def by_name(files, quick=QUICK):
    """Runs a test for each file; all but a few of them only where time allows."""
    marks = {file: [] if file.stem in quick else [pytest.mark.long] for file in files}
    return pytest.mark.parametrize("file", [pytest.param(f, marks=marks[f], id=f.stem) for f in files])


@by_name(FILES)
def test_as_pytorch_and_onnxruntime(file):
    name, exporter, opset = file.stem.split("-")
    recorded = np.load(FOLDER / f"{name}.npz")
    model, proto = load(file), onnx.load(file)
    for size in sizes_of(name, exporter):
        feeds = example(name, *size)
        got = model(**feeds)
        prefix = "-".join(map(str, size))
        assert_near(got, [recorded[f"{prefix}-{i}"] for i in range(len(model.outputs))])
        assert_near(got, oracle(name, int(opset), proto, feeds))


@by_name(FILES, quick={"llama-dynamo-23"})
def test_eager(file):
    name, _, opset = file.stem.split("-")
    model, feeds = load(file), example(name, *EXPORTED_AT)
    with jax.disable_jit():
        got = model.apply(model.params, *feeds.values())
    assert_near(got, oracle(name, int(opset), onnx.load(file), feeds))


@by_name(CACHED, quick={"llama-dynamo-23"})
def test_steps_from_a_cache_equal_the_whole(file):
    name = file.stem.split("-")[0]
    model = load(file)
    feeds = example(name, batch=2, length=6, seen=1)
    whole = model(**feeds)
    cache = {key: value for key, value in feeds.items() if key.startswith("past")}
    logits = []
    for start, stop in ((0, 3), (3, 4), (4, 6)):
        part, *present = model(**stepwise(feeds, start, stop, cache))
        logits.append(part)
        cache = dict(zip(cache, present, strict=True))
    assert_near([np.concatenate(logits, axis=1), *present], whole)


@pytest.mark.long
@pytest.mark.skipif(
    not (importlib.util.find_spec("torch") and importlib.util.find_spec("onnxscript")),
    reason="PyTorch is not installed: pip install torch onnxscript",
)
@pytest.mark.filterwarnings("ignore")  # of the exporters' own
@pytest.mark.parametrize("name", ["gpt", "llama", "bert", "vit"])
@pytest.mark.parametrize(
    ("exporter", "opset"),
    [("script", 14), ("script", 17), ("script", 20), *(("dynamo", opset) for opset in range(18, 24))],
)
def test_exported_afresh(name, exporter, opset):
    from tests.models.onnx.exported import make

    module = make.module(name)
    proto = make.export(module, name, exporter, opset)
    assert {entry.domain: entry.version for entry in proto.opset_import}[""] == opset
    model = convert(proto)
    run = jax.jit(model.apply)
    for size in sizes_of(name, exporter):
        feeds = example(name, *size)
        got = run(model.params, *feeds.values())
        assert_near(got, make.run(module, feeds))
        assert_near(got, oracle(name, opset, proto, feeds))
