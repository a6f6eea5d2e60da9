"""What the pages of docs/ show is what happens."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from bench import tables
from modeldiff_jax.profiling import machine

PAGES = Path(__file__).resolve().parent.parent / "docs"


def run_page(page, n_blocks, folder, monkeypatch):
    """Runs a page's code in an empty folder, in one session, as a reader would type it; what it has defined."""
    blocks = re.findall(r"^```python\n(.*?)^```", (PAGES / page).read_text("utf-8"), re.M | re.S)
    assert len(blocks) == n_blocks
    monkeypatch.chdir(folder)
    names = {}
    for code in blocks:
        with warnings.catch_warnings():  # noqa: TID251
            warnings.simplefilter("ignore")  # PyTorch's exporter has warnings of its own
            exec(compile(code, page, "exec"), names)
    return names


def test_the_pytorch_page_runs(tmp_path, monkeypatch, capsys):
    for needed in ("torch", "onnxscript"):
        pytest.importorskip(needed, reason=f"{needed}, which the page's reader has, is not installed")
    names = run_page("pytorch.md", 2, tmp_path, monkeypatch)
    errors = [float(line) for line in capsys.readouterr().out.splitlines() if re.fullmatch(r"[\d.e-]+", line)]
    assert len(errors) == 2
    assert max(errors) < 1e-5
    assert names["model"].inputs[0].shape[0] not in (1, 2)


def test_the_backend_page_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch", reason="torch, which the page's reader has, is not installed")
    run_page("backend.md", 3, tmp_path, monkeypatch)
    printed = capsys.readouterr().out.split()
    assert len(printed) == 4
    assert max(float(error) for error in printed[:2]) < 1e-5
    assert printed[2:] == ["True", "True"]


def test_the_page_of_call_modes_runs(tmp_path, monkeypatch, capsys):
    names = run_page("call-modes.md", 4, tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert "refused: A specialised model takes inputs" in printed
    assert "['values', 'at.mask', 'at.count']" in printed
    assert [int(n) for n in names["count"]] == [np.count_nonzero(x > 0.5) for x in names["batch"]]


def test_the_page_of_profiling_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine, "_LARGE_COPY", 2**20)  # the page is about figures, not about their worth
    monkeypatch.setattr(machine, "_LARGEST_PRODUCT", 512)
    names = run_page("profiling.md", 2, tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert f"on {2 * 4 * 20 * 50 * 100 + 4 * 20 * 50:,} bytes" in printed
    assert "the limit is" in printed
    assert all((tmp_path / "traces" / name).exists() for name in names["profile"].trace["files"])
    assert (tmp_path / "roofline.svg").read_text().startswith("<svg")


def test_the_page_of_benchmarks_is_what_the_results_say():
    for name, text in tables.pages(tables.recorded()).items():
        assert (PAGES / name).read_text("utf-8") == text, "python -m bench.tables writes it anew"
