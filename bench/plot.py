"""Draws line plots as SVG, panels two in a row, on the axes of the product's reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modeldiff_jax.report.plots.axes import Axis, Drawing, Frame, dot, path_through, text

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 300, 220, 60, 30, 20, 40
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A line through points; `dots` marks them too."""

    name: str
    colour: str
    points: Points
    dots: bool = True


@dataclass(frozen=True)
class Panel:
    """Lines over two axes; their names begin at `legend`, right of and below the upper left corner."""

    title: str
    lines: Sequence[Line]
    x: Axis
    y: Axis
    legend: tuple[int, int] = (8, 16)


def drawn(title: str, panels: Sequence[Panel]) -> str:
    """Returns the panels as an SVG file."""
    column, row = _LEFT + _WIDTH + _RIGHT, _TOP + _HEIGHT + _BOTTOM
    elements = [
        element
        for i, panel in enumerate(panels)
        for element in _panel(panel, _LEFT + i % 2 * column, _TOP + i // 2 * row)
    ]
    rows = -(-len(panels) // 2)
    return Drawing(title, 2 * column, rows * row, tuple(elements)).to_svg(background=True)


def _panel(panel: Panel, left: float, top: float) -> Iterator[str]:
    frame = Frame(panel.x, panel.y, left, top, _WIDTH, _HEIGHT)
    yield text(left, top - 10, panel.title, bold=True)
    yield from frame.x_grid()
    yield from frame.y_grid()
    for i, line in enumerate(panel.lines):
        places = [frame.place(*point) for point in line.points]
        yield path_through(places, line.colour)
        yield from (dot(*place, line.colour) for place in places if line.dots)
        yield text(left + panel.legend[0], top + panel.legend[1] + 16 * i, line.name, colour=line.colour)
