"""The roofline plot: operations per second against operations per byte, both by powers of ten."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from modeldiff_jax.report.plots.axes import COLOURS, Axis, Drawing, Frame, dot, line, text

_WIDTH, _HEIGHT = 640, 400
_LABEL = 150
_ROOM = 1.5
"""Factor between the outermost value and the end of its axis, at least."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """The limits of a device, and programs below them.

    Attributes:
      memory: bytes per second of the sloping roof.
      products: name -> operations per second of a flat roof.
      points: name, operations per byte and operations per second of each program.
    """

    memory: float
    products: Mapping[str, float]
    points: Sequence[tuple[str, float, float]]

    def draw(self) -> Drawing:
        """Returns the plot; programs without operations have no place on it and are left out."""
        points = [point for point in self.points if point[1] > 0 and point[2] > 0]
        rates = list(self.products.values())
        x = Axis.decades([x for _, x, _ in points] + [r / self.memory for r in rates], "operations per byte", _ROOM)
        y = Axis.decades([y for _, _, y in points] + rates, "operations per second", _ROOM)
        frame = Frame(x, y, 70, 20, _WIDTH - 90, _HEIGHT - 70)
        elements = [*frame.x_grid(), *frame.y_grid(), *self._roofs(frame), *_programs(frame, points)]
        return Drawing("Roofline", _WIDTH, _HEIGHT, tuple(elements))

    def _roofs(self, frame: Frame) -> Iterator[str]:
        low, top = max(frame.x.low, frame.y.low / self.memory), max(self.products.values())
        yield line(*frame.place(low, low * self.memory), *frame.place(top / self.memory, top), width=1.5)
        for i, (name, rate) in enumerate(self.products.items()):
            start, end = frame.place(rate / self.memory, rate), frame.place(frame.x.high, rate)
            yield line(*start, *end, width=1.5)
            # the highest roof's name above it, the others' below and beside one another: rates may be close
            beside = end[0] - 4 - i * _LABEL
            yield text(beside, end[1] - 5 if rate == top else end[1] + 14, f"{name} {rate:.3g}", anchor="end")


def _programs(frame: Frame, points: Sequence[tuple[str, float, float]]) -> Iterator[str]:
    for i, (name, intensity, rate) in enumerate(points):
        colour = COLOURS[i % len(COLOURS)]
        x, y = frame.place(intensity, rate)
        yield dot(x, y, colour, radius=5, hint=f"{name}: {rate:.3g} operations per second, {intensity:.3g} per byte")
        right = x < _WIDTH / 2
        yield text(x + 9 if right else x - 9, y + 4, name[:40], anchor="start" if right else "end", colour=colour)
