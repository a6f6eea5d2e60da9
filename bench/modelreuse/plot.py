"""Lines over two linear axes, as an SVG that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

_COLOURS = ("#1b6ca8", "#d1495b", "#1a7f37", "#9a6700", "#7a3e9d", "#444444")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 560, 360, 60, 20, 20, 50


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] = (0.0, 1.0),
    y_range: tuple[float, float] = (0.0, 1.0),
) -> str:
    """An SVG of named lines, each a sequence of (x, y)."""

    def x(value: float) -> float:
        return round(_LEFT + (value - x_range[0]) / (x_range[1] - x_range[0]) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        return round(
            _HEIGHT - _BOTTOM - (value - y_range[0]) / (y_range[1] - y_range[0]) * (_HEIGHT - _TOP - _BOTTOM), 1
        )

    drawn = []
    for i in range(6):
        at_x, at_y = (low + i / 5 * (high - low) for low, high in (x_range, y_range))
        drawn += [
            f'<line x1="{x(at_x)}" y1="{_TOP}" x2="{x(at_x)}" y2="{_HEIGHT - _BOTTOM}" stroke="#dddddd"/>',
            f'<line x1="{_LEFT}" y1="{y(at_y)}" x2="{_WIDTH - _RIGHT}" y2="{y(at_y)}" stroke="#dddddd"/>',
            f'<text x="{x(at_x)}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{at_x:.3g}</text>',
            f'<text x="{_LEFT - 6}" y="{y(at_y) + 4}" text-anchor="end">{at_y:.3g}</text>',
        ]
    middle = (_HEIGHT - _BOTTOM + _TOP) / 2
    drawn += [
        f'<text x="{(_WIDTH + _LEFT) / 2}" y="{_HEIGHT - 12}" text-anchor="middle">{html.escape(x_label)}</text>',
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
        f"{html.escape(y_label)}</text>",
    ]
    for i, (name, points) in enumerate(series.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        path = " ".join(f"{x(a)},{y(b)}" for a, b in points)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn.append(f'<text x="{_LEFT + 10}" y="{_TOP + 16 + 16 * i}" fill="{colour}">{html.escape(name)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>{"".join(drawn)}</svg>\n'
    )
