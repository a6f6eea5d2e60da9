"""A roofline plot as SVG: operations a second over operations a byte, both by powers of ten."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from modeldiff_jax.report.escape import printable

_WIDTH, _HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 20, 50
_LABEL = 150
_COLOURS = ("#0b5fa5", "#b42318", "#1a7f37", "#9a6700", "#7a3e9d", "#444")


@dataclass(frozen=True, slots=True)
class Roofline:
    """What the plot shows.

    Attributes:
      memory: bytes a second of the sloping roof.
      products: name -> operations a second of a flat roof.
      points: name, operations a byte, operations a second of each program.
    """

    memory: float
    products: Mapping[str, float]
    points: Sequence[tuple[str, float, float]]


def to_svg(plot: Roofline) -> str:
    """The plot as one `<svg>` element that needs nothing else, the last line ended."""
    points = [point for point in plot.points if point[1] > 0 and point[2] > 0]
    top = max(plot.products.values())
    ridges = [rate / plot.memory for rate in plot.products.values()]
    x_low, x_high = _decades([x for _, x, _ in points] + ridges)
    y_low, y_high = _decades([y for _, _, y in points] + [top, min(plot.products.values())])

    def x(value: float) -> float:
        share = (math.log10(value) - x_low) / (x_high - x_low)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        share = (math.log10(value) - y_low) / (y_high - y_low)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    def grid() -> Iterator[str]:
        for power in range(x_low, x_high + 1):
            at = x(10.0**power)
            yield f'<line x1="{at}" y1="{_TOP}" x2="{at}" y2="{_HEIGHT - _BOTTOM}" stroke="#ddd"/>'
            yield f'<text x="{at}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{_power(power)}</text>'
        for power in range(y_low, y_high + 1):
            at = y(10.0**power)
            yield f'<line x1="{_LEFT}" y1="{at}" x2="{_WIDTH - _RIGHT}" y2="{at}" stroke="#ddd"/>'
            yield f'<text x="{_LEFT - 6}" y="{at + 4}" text-anchor="end">{_power(power)}</text>'
        yield f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 10}" text-anchor="middle">operations a byte</text>'
        middle = _HEIGHT / 2
        yield (
            f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">'
            "operations a second</text>"
        )

    def roofs() -> Iterator[str]:
        low = max(10.0**x_low, 10.0**y_low / plot.memory)
        ridge = top / plot.memory
        yield _line(x(low), y(low * plot.memory), x(ridge), y(top))
        for i, (name, rate) in enumerate(plot.products.items()):
            yield _line(x(rate / plot.memory), y(rate), x(10.0**x_high), y(rate))
            place = _WIDTH - _RIGHT - 4 - i * _LABEL  # beside one another: rates may be near
            yield f'<text x="{place}" y="{y(rate) - 5}" text-anchor="end">{_text(name)} {rate:.3g}</text>'

    def dots() -> Iterator[str]:
        for i, (name, intensity, rate) in enumerate(points):
            colour = _COLOURS[i % len(_COLOURS)]
            told = f"{_text(name)}: {rate:.3g} operations a second, {intensity:.3g} a byte"
            yield f'<circle cx="{x(intensity)}" cy="{y(rate)}" r="5" fill="{colour}"><title>{told}</title></circle>'
            anchor, place = ("start", x(intensity) + 9) if x(intensity) < _WIDTH / 2 else ("end", x(intensity) - 9)
            label = _text(name[:40])
            yield f'<text x="{place}" y="{y(rate) + 4}" text-anchor="{anchor}" fill="{colour}">{label}</text>'

    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="11" role="img">'
    )
    return "\n".join([head, "<title>Roofline</title>", *grid(), *roofs(), *dots(), "</svg>"]) + "\n"


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Powers of ten around all values, with room on both sides."""
    return math.floor(math.log10(min(values) / 1.5)), math.ceil(math.log10(max(values) * 2))


def _power(power: int) -> str:
    return f'10<tspan dy="-4" font-size="8">{power}</tspan>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#222" stroke-width="1.5"/>'


def _text(value: str) -> str:
    return html.escape(printable(value))
