"""Plot of suspects' scores beside the distribution of the references' scores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modeldiff_jax.report.plots.axes import COLOURS, Axis, Drawing, Frame, bar, dot, line, text

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 540, 130, 60, 34, 40
_BINS = 60
_LONGEST_NAME = 18


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One suspect's score, and the references' scores by the same measure.

    Attributes:
      name: of the suspect, or of the score.
      score: the suspect's.
      references: the references' scores; may be empty.
    """

    name: str
    score: float
    references: Sequence[float]


@dataclass(frozen=True, slots=True)
class Distribution:
    """A row for each score, on one axis: references as bars, the suspect as a mark.

    Attributes:
      rows: one or more.
      label: the name and unit of the scores.
    """

    rows: Sequence[ScoreRow]
    label: str

    def draw(self) -> Drawing:
        """Returns the plot."""
        x = Axis.around([value for row in self.rows for value in (row.score, *row.references)], self.label)
        height = _ROW * len(self.rows)
        frame = Frame(x, Axis(0, len(self.rows), ()), _LEFT, _TOP, _WIDTH - _LEFT - _RIGHT, height)
        legend = [
            bar(_LEFT, 10, 12, 10, COLOURS[0], opacity=0.6),
            text(_LEFT + 18, 19, "references"),
            dot(_LEFT + 150, 15, COLOURS[1], radius=5),
            text(_LEFT + 160, 19, "suspect"),
        ]
        rows = [element for i, row in enumerate(self.rows) for element in _row(frame, i, row)]
        return Drawing(
            "Scores of the suspect and of references",
            _WIDTH,
            _TOP + height + 46,
            (*legend, *frame.x_grid(), *rows),
        )


def _row(frame: Frame, i: int, row: ScoreRow) -> Iterator[str]:
    base = frame.top + _ROW * (i + 1)
    yield line(frame.left, base, frame.left + frame.width, base, opacity=0.4)
    name = row.name if len(row.name) <= _LONGEST_NAME else f"...{row.name[3 - _LONGEST_NAME :]}"
    yield text(frame.left - 8, base - _ROW / 2 + 4, name, anchor="end")
    step = frame.width / _BINS
    shares = [frame.x.share(value) for value in row.references if math.isfinite(value)]
    counts = Counter(min(int(share * _BINS), _BINS - 1) for share in shares)
    tallest = max(counts.values(), default=1)
    for place, count in sorted(counts.items()):
        height = round((_ROW - 8) * count / tallest, 1)
        yield bar(
            round(frame.left + place * step + 0.5, 1),
            base - height,
            round(step - 1, 1),
            height,
            COLOURS[0],
            opacity=0.6,
        )
    x, _ = frame.place(row.score, 0)
    reached = sum(value >= row.score for value in row.references)
    hint = f"{row.name}: {row.score:.4g}; reached by {reached} of {len(row.references)} references"
    yield f'<path d="M{x} {base}V{base - _ROW + 6}" stroke="{COLOURS[1]}" stroke-width="2"/>'
    yield dot(x, base - _ROW + 8, COLOURS[1], radius=5, hint=hint)
    yield text(frame.left + frame.width + 8, base - _ROW / 2 + 4, f"{row.score:.3g}")
