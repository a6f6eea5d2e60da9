"""The report of a comparison is short, complete, and in words."""

import pytest

from modeldiff_jax.report import render
from modeldiff_jax.report.document import Figure
from modeldiff_jax.report.documents import document
from tests.helpers import records


@pytest.mark.parametrize("record", [r for n, r in records.ALL.items() if n.startswith("compare")])
def test_it_is_short_and_complete(record):
    text = render(record, "text")
    assert text.count("\n") < 30
    assert max(map(len, text.splitlines())) <= 120
    for fact in ("0.9123", "0.8765", "owner.onnx", "suspect.onnx", records.PROBE_SET_ID, "12.3 s", "48x192", "pgd"):
        assert fact in text


def test_with_many_notes_it_stays_short():
    many = [f"note {i}" for i in range(50)]
    record = records.compare(notes=many, adaptations={"target": many, "suspect": many})
    record["target"]["inputs"] = many
    text = render(record, "text")
    assert text.count("\n") < 40
    assert "and 46 more" in text


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (records.compare(), ["inconclusive", "p-value", "none", "--references"]),
        (
            records.with_verdict("reused", 0.05),
            ["reused", "0.05", "from 19 references", "supports reuse", "contradicts reuse"],
        ),
        (records.with_verdict("no_evidence", 0.6), ["no evidence of reuse", "0.6"]),
        (records.ALL["compare-context"], ["0.20 to 0.80", "999 unrelated pairs", "1 %", "no verdict"]),
        (records.ALL["compare-identical"], ["reused", "none: no references"]),
    ],
)
def test_the_verdict_is_in_words(record, words):
    text = render(record, "text")
    assert all(word in text for word in words)
    assert "independent" not in text


def test_references_of_another_kind_differ_from_no_references():
    record = records.with_verdict("inconclusive", 0.5) | {"p_value": None, "null_scores": {}}
    record["references"] = [{**reference, "counted": False} for reference in record["references"]]
    text = render(record, "text")
    assert "none: of 19 references none is of the suspect's kind" in text
    assert "--references" not in text
    assert "19, 0 of them ranked" in text


def figures(record):
    return [block.plot for block in document(record).blocks if isinstance(block, Figure)]


def test_scores_are_drawn_beside_those_of_references():
    distribution, *distances = figures(records.with_verdict("reused", 0.05))
    assert [(row.name, row.score, len(row.references)) for row in distribution.rows] == [
        ("related", 8.5, 19),
        ("ddv", 7.25, 19),
    ]
    assert len(distances) == 2


def test_the_similarity_is_drawn_where_it_is_ranked():
    record = records.compare(null_scores={"similarity": [0.1, 0.2, 0.3]})
    (row,) = figures(record)[0].rows
    assert (row.name, row.score, row.references) == ("similarity", record["similarity"], [0.1, 0.2, 0.3])


def test_without_references_the_decision_distances_are_drawn_alone():
    assert len(figures(records.compare())) == 2
