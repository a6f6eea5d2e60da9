"""The report of a conversion says whether it agrees with the reference runtime."""

import pytest

from modeldiff_jax.report import render
from tests.helpers import records


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (records.convert(), "agrees with onnxruntime"),
        (records.convert(agrees=False), "DIFFERS from onnxruntime"),
        (records.convert(check=False), "--check"),
    ],
)
def test_it_says_whether_it_agrees(record, words):
    assert words in render(record, "text")
