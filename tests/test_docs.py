"""What the pages of docs/ show is what happens."""

import re
import warnings
from pathlib import Path

import pytest

PAGES = Path(__file__).resolve().parent.parent / "docs"


def test_the_pytorch_page_runs(tmp_path, monkeypatch, capsys):
    for needed in ("torch", "onnxscript"):
        pytest.importorskip(needed, reason=f"{needed}, which the page's reader has, is not installed")
    blocks = re.findall(r"^```python\n(.*?)^```", (PAGES / "pytorch.md").read_text("utf-8"), re.M | re.S)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in blocks:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's exporter has warnings of its own
            exec(compile(code, "pytorch.md", "exec"), names)  # one session, as a reader would type it
    errors = [float(line) for line in capsys.readouterr().out.splitlines() if re.fullmatch(r"[\d.e-]+", line)]
    assert len(errors) == 2
    assert max(errors) < 1e-5
    assert names["model"].inputs[0].shape[0] not in (1, 2)


def test_the_backend_page_runs(monkeypatch, capsys):
    pytest.importorskip("torch", reason="torch, which the page's reader has, is not installed")
    code = "".join(re.findall(r"^```python\n(.*?)^```", (PAGES / "backend.md").read_text("utf-8"), re.M | re.S))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own
        exec(compile(code, "backend.md", "exec"), {})
    printed = capsys.readouterr().out.split()
    assert len(printed) == 4
    assert max(float(error) for error in printed[:2]) < 1e-5
    assert printed[2:] == ["True", "True"]
