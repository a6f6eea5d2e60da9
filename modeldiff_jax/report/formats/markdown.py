"""Documents as GitHub-flavoured Markdown, for pull requests and notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modeldiff_jax.report.document import Document, Fields, Figure, Table
from modeldiff_jax.report.escape import markdown


def to_markdown(document: Document) -> str:
    """Returns the document as Markdown, the last line ended."""
    blocks = [_block(block) for block in document.blocks if not isinstance(block, Figure)]
    head = [f"## {markdown(document.title)}", f"**{markdown(document.headline)}**"]
    return "\n\n".join([*head, *blocks, markdown(document.made)]) + "\n"


def _block(block: Fields | Table) -> str:
    match block:
        case Fields(rows):
            cells = [[markdown(label), "<br>".join(map(markdown, values))] for label, values in rows]
            return _rows(["", ""], cells, frozenset())
        case Table(head, rows, numeric):
            return _rows(map(markdown, head), [list(map(markdown, row)) for row in rows], numeric)


def _rows(head: Iterable[str], rows: Sequence[Sequence[str]], numeric: frozenset[int]) -> str:
    head = list(head)
    rule = ["---:" if i in numeric else "---" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])
