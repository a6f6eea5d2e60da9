"""The report of a screening has a row for each suspect, the verdict near its name."""

from modeldiff_jax.report import render
from modeldiff_jax.report.document import Figure
from modeldiff_jax.report.documents import document
from tests.helpers import records


def test_every_suspect_has_its_row_and_its_verdict():
    table = render(records.screen("reused", "no_evidence", "inconclusive"), "text").split("\n\n")[1].splitlines()
    words = ["reused", "no evidence of reuse", "inconclusive"]
    assert [word in line for word, line in zip(words, table[1:], strict=True)] == [True] * 3


def test_one_suspect_is_one():
    assert "0 of 1 suspect reused" in render(records.screen("no_evidence"), "text")


def test_suspects_that_are_ranked_are_drawn():
    (figure,) = (b for b in document(records.screen("reused", "inconclusive")).blocks if isinstance(b, Figure))
    assert [row.name for row in figure.plot.rows] == ["0.onnx"]


def test_a_long_screening_draws_the_first_suspects_and_says_so():
    (figure,) = (b for b in document(records.screen(*["reused"] * 100)).blocks if isinstance(b, Figure))
    assert len(figure.plot.rows) == 40
    assert "40 of 100" in figure.caption
