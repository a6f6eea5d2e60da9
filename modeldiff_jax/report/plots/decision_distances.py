"""Scatter plot of two models' decision distances, a dot for each probe pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modeldiff_jax.report.plots.axes import COLOURS, Axis, Drawing, Frame, dot

_SIZE = 220
_MOST = 1000
"""Most pairs drawn; where there are more, evenly spaced ones are."""


@dataclass(frozen=True, slots=True)
class DecisionDistances:
    """Decision distances of two models on the same N probe pairs.

    Attributes:
      target, suspect: N distances each, 0 or more.
    """

    target: Sequence[float]
    suspect: Sequence[float]

    def draw(self) -> Drawing:
        """Returns the plot: dots along a line through the origin mean a similarity near 1."""
        step = max(1, -(-len(self.target) // _MOST))
        pairs = list(zip(self.target, self.suspect, strict=True))[::step]
        x = Axis.around([0.0, *(x for x, _ in pairs)], "distance by the target", marks=4)
        y = Axis.around([0.0, *(y for _, y in pairs)], "distance by the suspect", marks=4)
        frame = Frame(x, y, 70, 14, _SIZE, _SIZE)
        dots = [dot(*frame.place(x, y), COLOURS[0], opacity=0.6) for x, y in pairs]
        return Drawing("Decision distances", _SIZE + 90, _SIZE + 64, (*frame.x_grid(), *frame.y_grid(), *dots))
