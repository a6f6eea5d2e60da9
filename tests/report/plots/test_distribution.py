"""The plot places the suspect among the references by its score."""

import math
import xml.etree.ElementTree as ElementTree

import pytest

from modeldiff_jax.report.plots.distribution import Distribution, ScoreRow

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*rows):
    return ElementTree.fromstring(Distribution(rows, "score").draw().to_svg())


def marks(tree):
    """Returns places of the suspects' marks, and of the bars, without the legend's."""
    dots = [float(e.attrib["cx"]) for e in tree.iter(f"{SVG}circle")][1:]
    bars = [(float(e.attrib["x"]), float(e.attrib["width"])) for e in tree.iter(f"{SVG}rect")][1:]
    return dots, bars


@pytest.mark.parametrize(("score", "beyond"), [(9.0, True), (-9.0, False)])
def test_the_suspect_is_right_or_left_of_lower_and_higher_scores(score, beyond):
    (dot,), bars = marks(drawn(ScoreRow("related", score, [-1.0, 0.0, 0.5, 1.0])))
    assert all((x + width < dot) == beyond for x, width in bars)


def test_every_row_has_its_mark_and_the_count_of_scores_that_reach_it():
    tree = drawn(ScoreRow("a", 1.0, [0.0, 1.0, 2.0]), ScoreRow("b", 3.0, []))
    hints = [title.text for title in tree.iter(f"{SVG}title")]
    assert "a: 1; reached by 2 of 3 references" in hints
    assert len(marks(tree)[0]) == 2


@pytest.mark.parametrize("references", [[], [0.5], [0.5] * 999, [math.nan, math.inf], [-1e300, 1e300]])
def test_everything_is_inside(references):
    tree = drawn(ScoreRow("x" * 500, 0.5, references))
    width, height = float(tree.attrib["width"]), float(tree.attrib["height"])
    for element in tree.iter():
        assert all(
            0 <= float(element.get(name, 0)) <= width
            for name in ("x", "x1", "x2", "cx")
            if "%" not in element.get(name, "")
        )
        assert all(0 <= float(element.get(name, 0)) <= height for name in ("y", "y1", "y2", "cy"))


def test_names_are_text():
    svg = Distribution([ScoreRow("</svg><script>\x1b", 0.5, [])], "<b>").draw().to_svg()
    assert "<script" not in svg
    assert "<b>" not in svg
    assert svg.replace("\n", "").isprintable()
