"""Files to compare, and a substitute for the comparison that returns at once."""

import pytest

from modeldiff_jax.detection import compare as comparison
from tests.helpers import records
from tests.helpers.onnx_graphs import classifier


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    """Tests leave the user's cache folder and JAX's settings alone."""
    monkeypatch.setenv("MODELDIFF_CACHE_DIR", "")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Makes the current folder one with a.onnx, its child b.onnx, an unrelated c.onnx and three references."""
    monkeypatch.chdir(tmp_path)
    classifier(tmp_path / "a.onnx")
    classifier(tmp_path / "b.onnx", noise=0.05)
    classifier(tmp_path / "c.onnx", seed=5, classes=7)
    (tmp_path / "refs").mkdir()
    for seed in (20, 21, 22):
        classifier(tmp_path / "refs" / f"{seed}.onnx", seed=seed)
    return tmp_path


@pytest.fixture
def stub(monkeypatch, tmp_path):
    """Puts a record in place of the comparison; gives the arguments it was called with."""
    monkeypatch.chdir(tmp_path)
    calls = []

    class Result:
        record = records.compare()

        def to_dict(self):
            return dict(self.record)

    def compare(a, b, **options):
        calls.append({"a": a, "b": b, **options})
        return Result()

    monkeypatch.setattr(comparison, "compare", compare)
    compare.calls, compare.result = calls, Result
    return compare
