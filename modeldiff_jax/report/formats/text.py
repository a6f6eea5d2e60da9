"""Documents as plain text: the same lines everywhere, fitted to the window and in colour on a terminal."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Literal

from modeldiff_jax.report.document import Document, Fields, Figure, Table, Tone
from modeldiff_jax.report.escape import printable

_WIDTH = 110
_NARROWEST = 40
_NARROWEST_COLUMN = 9
_GAP = 2
_UNBOUNDED = 100_000
_LAST_SPACES = re.compile(r" +((?:\x1b\[[0-9;]*m *)*)$")
"""Spaces at the end of a line, those before a change of colour too."""
_STYLES: Mapping[Tone, str] = {"plain": "bold", "good": "bold green", "bad": "bold red", "unsure": "bold yellow"}


def to_text(document: Document, *, colour: bool = False, width: int | None = None) -> str:
    """Returns the document as lines of text, the last one ended.

    Args:
      colour: whether the text may hold ANSI colours.
      width: columns of the terminal it is for, which tables are fitted to. None for text that is kept or read by a
        program: a line for each row of a table, however long.
    """
    headline = _styled(printable(document.headline), _STYLES[document.tone], colour)
    blocks = [
        _fields(block, width) if isinstance(block, Fields) else _table(block, colour, width)
        for block in document.blocks
        if not isinstance(block, Figure)
    ]
    return "\n\n".join([f"{document.title}: {headline}", *blocks, document.made]) + "\n"


def _fields(block: Fields, width: int | None) -> str:
    margin = max((len(label) for label, _ in block.rows), default=0) + 2
    columns = max(min(width or _WIDTH, _WIDTH) - margin, _NARROWEST)
    lines = []
    for label, values in block.rows:
        head = printable(label).ljust(margin)
        for value in values:
            # paths and hashes are for copying: they are never broken
            wrapped = textwrap.wrap(printable(value), columns, break_long_words=False, break_on_hyphens=False)
            for line in wrapped or [""]:
                lines.append((head + line).rstrip())
                head = " " * margin
    return "\n".join(lines)


def _table(block: Table, colour: bool, width: int | None) -> str:
    """Returns the table's lines; in a window wide enough for its numbers, texts are folded to fit."""
    from rich.table import Table as Grid
    from rich.text import Text

    cells = [[printable(cell) for cell in row] for row in [block.head, *block.rows]]
    widest = [max(map(len, column)) for column in zip(*cells, strict=True)]
    narrowest = [w if i in block.numeric else min(w, _NARROWEST_COLUMN) for i, w in enumerate(widest)]
    fits = width is not None and sum(narrowest) + _GAP * (len(widest) - 1) <= width
    grid = Grid(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="")
    for i, (name, least) in enumerate(zip(cells[0], narrowest, strict=True)):
        justify: Literal["left", "right"] = "right" if i in block.numeric else "left"
        whole = i in block.numeric or not fits
        head = Text.assemble((name, "bold"))  # text, not markup: a model's name may hold brackets
        grid.add_column(head, justify=justify, overflow="fold", no_wrap=whole, min_width=least)
    tones: Sequence[Tone] = block.tones or ["plain"] * len(block.rows)
    for row, tone in zip(cells[1:], tones, strict=True):
        style = _STYLES[tone].removeprefix("bold").strip() if tone != "plain" else ""
        grid.add_row(*(Text.assemble((cell, style)) for cell in row))
    return _printed(grid, colour, width if width is not None and fits else _UNBOUNDED)


def _styled(text: str, style: str, colour: bool) -> str:
    if not colour:
        return text
    from rich.text import Text

    return _printed(Text.assemble((text, style)), colour, _UNBOUNDED)


def _printed(renderable: object, colour: bool, width: int) -> str:
    """Returns text as rich renders it, independent of the environment, without spaces at the ends of lines."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        no_color=not colour,
        force_jupyter=False,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
    )
    console.print(renderable, crop=False, soft_wrap=False)
    lines = stream.getvalue().rstrip("\n").split("\n")
    return "\n".join(_LAST_SPACES.sub(lambda match: match[1].replace(" ", ""), line) for line in lines)
