"""A `Document`: the content of a report, before any format decides how it looks.

Strings in a document are data, not markup: model names, node names and paths are a stranger's text, and each format
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
      rows: as many cells as `head` each.
      numeric: numbers of the columns to align right.
      tones: the tone of each row, where rows differ in it.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()
    tones: Sequence[Tone] = ()


@runtime_checkable
class Plot(Protocol):
    """Anything that can be drawn."""

    def draw(self) -> Drawing:
        """The plot as a drawing."""
        ...


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot and the sentence that says how to read it; formats of text alone leave it out."""

    plot: Plot
    caption: str


Block: TypeAlias = Fields | Table | Figure


@dataclass(frozen=True, slots=True)
class Document:
    """The content of a report.

    Attributes:
      title: the command.
      headline: the one line that matters most.
      tone: of the headline.
      blocks: the rest, in reading order.
      made: when the record was made, and with which versions.
    """

    title: str
    headline: str
    tone: Tone
    blocks: Sequence[Block]
    made: str
