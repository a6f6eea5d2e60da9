"""A document as plain text, in colour where the caller says so."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from modeldiff_jax.report.documents import Document, Fields, Table, Tone
from modeldiff_jax.report.escape import printable
from modeldiff_jax.report.plots.roofline import Roofline

_WIDTH = 110
_COLOURS: Mapping[Tone, str] = {"plain": "1", "good": "1;32", "bad": "1;31", "unsure": "1;33"}


def to_text(document: Document, *, colour: bool = False) -> str:
    """The document as lines of text, the last one ended."""
    headline = printable(document.headline)
    if colour:
        headline = f"\x1b[{_COLOURS[document.tone]}m{headline}\x1b[0m"
    blocks = [_block(block) for block in document.blocks if not isinstance(block, Roofline)]  # a picture
    return "\n\n".join([f"{document.title}: {headline}", *blocks]) + "\n"


def _block(block: Fields | Table) -> str:
    match block:
        case Fields(rows):
            return _fields(rows)
        case Table():
            return _table(block)


def _fields(rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    margin = max((len(label) for label, _ in rows), default=0) + 2
    lines = []
    for label, values in rows:
        head = printable(label).ljust(margin)
        for value in values:
            # paths and hashes are for copying: they are never broken
            wrapped = textwrap.wrap(printable(value), _WIDTH - margin, break_long_words=False, break_on_hyphens=False)
            for line in wrapped or [""]:
                lines.append((head + line).rstrip())
                head = " " * margin
    return "\n".join(lines)


def _table(table: Table) -> str:
    cells = [[printable(cell) for cell in row] for row in [table.head, *table.rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in table.numeric else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )
