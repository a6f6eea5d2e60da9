"""A dot for each pair, at the two models' distances."""

import xml.etree.ElementTree as ElementTree

import pytest

from modeldiff_jax.report.plots.decision_distances import DecisionDistances

SVG = "{http://www.w3.org/2000/svg}"


def dots(target, suspect):
    tree = ElementTree.fromstring(DecisionDistances(target, suspect).draw().to_svg())
    return [tuple(float(dot.attrib[name]) for name in ("cx", "cy")) for dot in tree.iter(f"{SVG}circle")]


def test_equal_vectors_lie_on_the_diagonal():
    places = dots([0.0, 0.5, 1.0], [0.0, 0.5, 1.0])
    (x0, y0), (x1, y1), (x2, y2) = places
    assert (x1 - x0, y0 - y1) == pytest.approx((x2 - x1, y1 - y2), abs=0.2)


@pytest.mark.parametrize("n", [2, 100, 5000])
def test_many_pairs_are_thinned(n):
    assert len(dots([0.1] * n, [0.2] * n)) == min(n, 1000)
