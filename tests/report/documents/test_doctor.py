"""The doctor's report gives the line that installs what is missing, in one piece."""

from modeldiff_jax.report import render
from tests.helpers import records


def test_the_line_that_installs_what_is_missing_can_be_copied():
    line = "/usr/bin/python3 -m pip install 'onnxruntime>=1.20'"
    assert line in render(records.doctor(), "text")
    assert line in render(records.doctor(), "text", width=80)


def test_problems_are_named():
    assert "Missing packages" in render(records.doctor(ok=False), "text")
