"""Axes, marks and text that all SVG drawings share.

A drawing sets no colour for its text, axes and grid: they follow the page's text colour, so one drawing is readable on
a light page, on a dark one and in print. A drawing in a separate file gets a white background.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from modeldiff_jax.report.escape import printable

COLOURS = ("#2f7fd1", "#d1495b", "#2e9e5b", "#b07d10", "#8e5bb5", "#7d7d7d")
"""Colours that are readable on white and on black."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A finished drawing, `width` by `height` pixels, made of SVG elements."""

    title: str
    width: int
    height: int
    elements: tuple[str, ...]

    def to_svg(self, *, background: bool = False) -> str:
        """Returns the drawing as one `<svg>` element, the last line ended.

        Args:
          background: whether to paint it white, for a drawing in a separate file; else it takes the page's colours.
        """
        colour = ' color="#222"' if background else ""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}"{colour} fill="currentColor" font-family="system-ui, sans-serif" font-size="12" '
            'role="img">'
        )
        rectangle = ['<rect width="100%" height="100%" fill="white"/>'] if background else []
        return "\n".join([head, f"<title>{escaped(self.title)}</title>", *rectangle, *self.elements, "</svg>"]) + "\n"


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values, linear or logarithmic, with marks at `ticks`."""

    low: float
    high: float
    ticks: tuple[float, ...]
    label: str = ""
    logarithmic: bool = False

    @classmethod
    def even(cls, low: float, high: float, step: float, label: str = "") -> Axis:
        """Returns a linear axis from `low` to `high` with a mark at every `step`."""
        count = round((high - low) / step)
        return cls(low, high, tuple(round(low + i * step, 12) for i in range(count + 1)), label)

    @classmethod
    def around(cls, values: Sequence[float], label: str = "", marks: int = 8) -> Axis:
        """Returns a linear axis with round marks, about `marks` at most, that holds all finite values."""
        finite = [value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(finite), max(finite)
        span = high - low or abs(high) or 1.0
        # the step is 1, 2 or 5 times a power of ten, and the least one that gives few enough marks
        power = 10.0 ** math.floor(math.log10(span / marks))
        step = next(size * power for size in (1, 2, 5, 10, 20) if span / (size * power) <= marks)
        first, last = math.floor(low / step), math.ceil(high / step)
        last = max(last, first + 1)
        return cls(first * step, last * step, tuple(float(f"{i * step:.12g}") for i in range(first, last + 1)), label)

    @classmethod
    def decades(cls, values: Sequence[float], label: str = "", room: float = 1.0) -> Axis:
        """Returns a logarithmic axis over the powers of ten that hold all values, with a factor `room` to spare."""
        low, high = math.floor(math.log10(min(values) / room)), math.ceil(math.log10(max(values) * room))
        high = max(high, low + 1)
        return cls(10.0**low, 10.0**high, tuple(10.0**power for power in range(low, high + 1)), label, True)

    def share(self, value: float) -> float:
        """Returns the place of a value on the axis: 0 at the low end, 1 at the high one."""
        if self.logarithmic:
            return math.log10(value / self.low) / math.log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def tick_label(self, tick: float) -> str:
        """Returns a mark's label as SVG text content."""
        if not self.logarithmic:
            return f"{tick:g}"
        power = round(math.log10(tick))
        return f"{tick:g}" if -3 < power < 3 else f'10<tspan dy="-4" font-size="9">{power}</tspan>'


@dataclass(frozen=True, slots=True)
class Frame:
    """A rectangle between two axes; `left` and `top` are its corner, in pixels."""

    x: Axis
    y: Axis
    left: float
    top: float
    width: float
    height: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Returns the pixel of a pair of values."""
        return (
            round(self.left + self.x.share(x) * self.width, 1),
            round(self.top + (1 - self.y.share(y)) * self.height, 1),
        )

    def x_grid(self) -> Iterator[str]:
        """Yields vertical lines at the marks of the x axis, their labels, and the name of the axis."""
        bottom = self.top + self.height
        for tick in self.x.ticks:
            x = round(self.left + self.x.share(tick) * self.width, 1)
            yield line(x, self.top, x, bottom, opacity=0.15)
            yield text(x, bottom + 16, self.x.tick_label(tick), anchor="middle", markup=True)
        if self.x.label:
            yield text(self.left + self.width / 2, bottom + 36, self.x.label, anchor="middle")

    def y_grid(self) -> Iterator[str]:
        """Yields horizontal lines at the marks of the y axis, their labels, and the name of the axis."""
        for tick in self.y.ticks:
            y = round(self.top + (1 - self.y.share(tick)) * self.height, 1)
            yield line(self.left, y, self.left + self.width, y, opacity=0.15)
            yield text(self.left - 6, y + 4, self.y.tick_label(tick), anchor="end", markup=True)
        if self.y.label:
            middle = self.top + self.height / 2
            yield text(16, middle, self.y.label, anchor="middle", turned=True)


def escaped(value: str) -> str:
    """Returns untrusted text as SVG text content."""
    return html.escape(printable(value))


def text(
    x: float,
    y: float,
    content: str,
    *,
    anchor: str = "start",
    colour: str = "",
    bold: bool = False,
    turned: bool = False,
    markup: bool = False,
) -> str:
    """Returns a line of text; `content` is escaped unless it is `markup` made here."""
    attributes = [f'x="{x:g}" y="{y:g}"', f'text-anchor="{anchor}"' if anchor != "start" else ""]
    attributes += [f'fill="{colour}"' if colour else "", 'font-weight="bold"' if bold else ""]
    attributes += [f'transform="rotate(-90 {x:g} {y:g})"' if turned else ""]
    return f"<text {' '.join(filter(None, attributes))}>{content if markup else escaped(content)}</text>"


def line(x1: float, y1: float, x2: float, y2: float, *, opacity: float = 1.0, width: float = 1.0) -> str:
    """Returns a straight line in the colour of the text."""
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="currentColor" stroke-opacity="{opacity:g}" '
        f'stroke-width="{width:g}"/>'
    )


def path_through(points: Iterable[tuple[float, float]], colour: str) -> str:
    """Returns a line through points, from one to the next."""
    joined = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>'


def dot(x: float, y: float, colour: str, *, radius: float = 3, opacity: float = 1.0, hint: str = "") -> str:
    """Returns a disc; `hint` is shown when a pointer rests on it."""
    faint = f' fill-opacity="{opacity:g}"' if opacity < 1 else ""
    inside = f"<title>{escaped(hint)}</title>" if hint else ""
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{colour}"{faint}>{inside}</circle>'


def bar(x: float, y: float, width: float, height: float, colour: str, *, opacity: float = 1.0) -> str:
    """Returns a filled rectangle."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{colour}" fill-opacity="{opacity:g}"/>'
    )
