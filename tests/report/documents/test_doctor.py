"""The doctor's report has the line that installs missing packages, unbroken."""

from modeldiff_jax.report import render
from tests.helpers import records


def test_the_line_that_installs_missing_packages_can_be_copied():
    line = "/usr/bin/python3 -m pip install 'onnxruntime>=1.20'"
    assert line in render(records.doctor(), "text")
    assert line in render(records.doctor(), "text", width=80)


def test_problems_are_named():
    assert "Missing packages" in render(records.doctor(ok=False), "text")
