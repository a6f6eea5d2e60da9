"""Axes hold their values, have round marks, and drawings take the colours of their page."""

import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldiff_jax.report.plots.axes import Axis, Drawing, Frame, dot, text

NUMBERS = st.floats(-1e9, 1e9).filter(lambda x: x == 0 or abs(x) > 1e-9)


@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_an_axis_around_values_holds_them_all(values):
    axis = Axis.around(values)
    assert all(-1e-6 <= axis.share(value) <= 1 + 1e-6 for value in values)
    assert 2 <= len(axis.ticks) <= 12
    assert list(axis.ticks) == sorted(set(axis.ticks))


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0, 1], (0, 0.2, 0.4, 0.6, 0.8, 1)),
        ([-1, 5], (-1, 0, 1, 2, 3, 4, 5)),
        ([3, 3], (3.0, 3.5)),
        ([0, 0], (0, 0.2)),
        ([], (0, 0.2)),
        ([float("nan"), float("inf"), 0, 40], (0, 5, 10, 15, 20, 25, 30, 35, 40)),
    ],
)
def test_marks_are_round(values, ticks):
    assert Axis.around(values).ticks == pytest.approx(ticks)


def test_decades_are_powers_of_ten():
    axis = Axis.decades([20, 5000])
    assert axis.ticks == (10.0, 100.0, 1000.0, 10000.0)
    assert axis.share(100) == pytest.approx(1 / 3)
    assert [axis.tick_label(tick) for tick in axis.ticks][1] == "100"
    assert ">4<" in axis.tick_label(10000.0)


def test_even_axes_have_the_marks_they_are_given():
    assert Axis.even(0, 0.3, 0.1).ticks == (0, 0.1, 0.2, 0.3)


def test_y_goes_up():
    frame = Frame(Axis.even(0, 1, 1), Axis.even(0, 1, 1), 10, 20, 100, 50)
    assert frame.place(0, 0) == (10, 70)
    assert frame.place(1, 1) == (110, 20)


def test_only_a_separate_file_has_a_background():
    drawing = Drawing("<title>", 100, 50, (text(0, 0, "a & b"), dot(1, 1, "red", hint="<x>")))
    assert "white" not in drawing.to_svg()
    assert "white" in drawing.to_svg(background=True)
    for svg in (drawing.to_svg(), drawing.to_svg(background=True)):
        assert "a & b" in [element.text for element in ElementTree.fromstring(svg)]
