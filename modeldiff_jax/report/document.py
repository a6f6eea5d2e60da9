"""Documents: the content of reports, independent of their formats.

Strings in a document are data, not markup: model names, node names and paths are untrusted text, and each format
escapes every string it prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from modeldiff_jax.report.plots.axes import Drawing

Tone: TypeAlias = Literal["plain", "good", "bad", "unsure"]


@dataclass(frozen=True, slots=True)
class Fields:
    """Labelled values; a value is one or more lines."""

    rows: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of text.

    Attributes:
      head: the columns' names.
      rows: tuples of one cell for each column.
      numeric: indices of the columns to align right.
      tones: the tone of each row; none where all are plain.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()
    tones: Sequence[Tone] = ()


@runtime_checkable
class Plot(Protocol):
    """A plot: any object that can be drawn."""

    def draw(self) -> Drawing:
        """Returns the plot as a drawing."""
        ...


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot and a caption that explains it; text formats leave it out."""

    plot: Plot
    caption: str


Block: TypeAlias = Fields | Table | Figure


@dataclass(frozen=True, slots=True)
class Document:
    """The content of a report.

    Attributes:
      title: the command.
      headline: the result in one line.
      tone: of the headline.
      blocks: the rest, in reading order.
      made: date and versions that the record was made with.
    """

    title: str
    headline: str
    tone: Tone
    blocks: Sequence[Block]
    made: str
