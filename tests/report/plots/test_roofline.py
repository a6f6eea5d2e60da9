"""The plot is complete, to scale, and harmless whatever the names of programs."""

import xml.etree.ElementTree as ElementTree

import pytest

from modeldiff_jax.report.plots.roofline import Roofline

PRODUCTS = {"float32": 1e11, "bfloat16": 4e11}
SVG = "{http://www.w3.org/2000/svg}"


def drawn(points, memory=4e10):
    return ElementTree.fromstring(Roofline(memory, PRODUCTS, points).draw().to_svg())


def dots(tree):
    return [tuple(float(dot.attrib[name]) for name in ("cx", "cy")) for dot in tree.iter(f"{SVG}circle")]


def test_ten_times_as_many_are_one_step_further_on_both_axes():
    a, b, c = dots(drawn([("a", 1, 1e9), ("b", 10, 1e10), ("c", 100, 1e10)]))
    assert b[0] - a[0] == pytest.approx(c[0] - b[0], abs=0.2)
    assert b[1] < a[1]
    assert b[1] == c[1]


@pytest.mark.parametrize("intensity", [0.01, 1.0, 2.5, 1000.0])
def test_a_program_at_the_roof_is_drawn_on_it(intensity):
    tree = drawn([("at the roof", intensity, min(4e10 * intensity, 4e11))])
    ((x, y),) = dots(tree)
    roofs = [
        tuple(float(line.attrib[name]) for name in ("x1", "y1", "x2", "y2"))
        for line in tree.iter(f"{SVG}line")
        if line.attrib["stroke-width"] == "1.5"
    ]
    assert any(
        x1 - 1 <= x <= x2 + 1 and y == pytest.approx(y1 + (y2 - y1) * (x - x1) / (x2 - x1), abs=1)
        for x1, y1, x2, y2 in roofs
    )


@pytest.mark.parametrize("points", [[], [("nothing", 0.0, 0.0)], [("tiny", 1e-9, 1e-3)], [("huge", 1e9, 1e30)]])
def test_everything_is_inside(points):
    tree = drawn(points)
    for element in tree.iter():
        for name in ("x", "x1", "x2", "cx"):
            assert 0 <= float(element.get(name, 0)) <= 640
        for name in ("y", "y1", "y2", "cy"):
            assert 0 <= float(element.get(name, 0)) <= 400
    assert len(dots(tree)) == sum(rate > 0 for _, _, rate in points)


def test_names_are_text():
    evil = "</svg><script>alert(1)</script>&\x00\x1b\ud800\u202e" + "x" * 5000
    text = Roofline(4e10, {"<b>": 1e11}, [(evil, 1.0, 1e9)]).draw().to_svg()
    assert "<script" not in text
    assert "<b>" not in text
    assert text.replace("\n", "").isprintable()
    ElementTree.fromstring(text)
