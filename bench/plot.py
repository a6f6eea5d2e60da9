"""Line plots as SVG, two panels in a row."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

_WIDE, _HIGH, _LEFT, _TOP = 300, 220, 60, 30
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, of the values or of their decimal logarithms, with marks at `ticks`."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    @classmethod
    def even(cls, low: float, high: float, step: float) -> Axis:
        """Linear, with a mark at every step."""
        count = round((high - low) / step)
        return cls(low, high, tuple(low + i * step for i in range(count + 1)))

    @classmethod
    def decades(cls, values: Sequence[float]) -> Axis:
        """Logarithmic, over the powers of ten that hold all values."""
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        high = max(high, low + 1)
        return cls(low, high, tuple(10.0**power for power in range(low, high + 1)), True)

    def share(self, value: float) -> float:
        """Where a value stands, 0 at the low end and 1 at the high one."""
        return ((math.log10(value) if self.logarithmic else value) - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Line:
    """Points, joined; `dots` marks them too."""

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


def drawn(panels: Sequence[Panel]) -> str:
    """The SVG."""
    rows = -(-len(panels) // 2)
    width, height = 2 * (_LEFT + _WIDE + 20), rows * (_TOP + _HIGH + 40)
    parts = [
        f'<g transform="translate({i % 2 * (_LEFT + _WIDE + 20)} {i // 2 * (_TOP + _HIGH + 40)})">{_panel(panel)}</g>'
        for i, panel in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        f' font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _panel(panel: Panel) -> str:
    def at(x: float, y: float) -> tuple[float, float]:
        return round(_LEFT + panel.x.share(x) * _WIDE, 1), round(_TOP + (1 - panel.y.share(y)) * _HIGH, 1)

    left, bottom = panel.x.ticks[0], panel.y.ticks[0]
    parts = [f'<text x="{_LEFT}" y="{_TOP - 10}" font-weight="bold">{html.escape(panel.title)}</text>']
    for tick in panel.x.ticks:
        x, y = at(tick, bottom)
        parts.append(f'<path d="M{x} {_TOP}V{y}" stroke="#ddd"/>')
        label = f"{round(tick):,}" if panel.x.logarithmic else f"{tick:g}"
        parts.append(f'<text x="{x}" y="{y + 16}" text-anchor="middle">{label}</text>')
    for tick in panel.y.ticks:
        x, y = at(left, tick)
        parts.append(f'<path d="M{x} {y}h{_WIDE}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 6}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
    for place, line in enumerate(panel.lines):
        path = " ".join(f"{x},{y}" for x, y in (at(*point) for point in line.points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2"/>')
        dots = line.points if line.dots else []
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{line.colour}"/>' for x, y in (at(*p) for p in dots)]
        x, y = _LEFT + panel.legend[0], _TOP + panel.legend[1] + 16 * place
        parts.append(f'<text x="{x}" y="{y}" fill="{line.colour}">{html.escape(line.name)}</text>')
    return "".join(parts)
