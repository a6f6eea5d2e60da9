"""A document as one HTML page: no script, nothing loaded from elsewhere, so it can be mailed and filed."""

from __future__ import annotations

import html
from collections.abc import Mapping

from modeldiff_jax.report.documents import Block, Document, Fields, Table, Tone
from modeldiff_jax.report.escape import printable
from modeldiff_jax.report.plots.roofline import Roofline, to_svg

_COLOURS: Mapping[Tone, str] = {"plain": "#444", "good": "#1a7f37", "bad": "#b42318", "unsure": "#9a6700"}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }}
h1 {{ font-size: 1.2rem }}
.headline {{ font-size: 1.1rem; font-weight: 600; color: {colour}; border-left: .3rem solid; padding-left: .8rem }}
table {{ border-collapse: collapse; margin: 1.2rem 0; width: 100% }}
th, td {{ border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left; vertical-align: top }}
td {{ overflow-wrap: anywhere }}
.numeric {{ text-align: right; font-variant-numeric: tabular-nums }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="headline">{headline}</p>
{blocks}
</body>
</html>
"""


def to_html(document: Document) -> str:
    """The document as a whole page, the last line ended."""
    return _PAGE.format(
        title=_text(document.title),
        headline=_text(document.headline),
        colour=_COLOURS[document.tone],
        blocks="\n".join(map(_block, document.blocks)),
    )


def _text(value: str) -> str:
    return html.escape(printable(value))


def _block(block: Block) -> str:
    match block:
        case Fields(rows):
            lines = [
                f"<tr><th>{_text(label)}</th><td>{'<br>'.join(map(_text, values))}</td></tr>" for label, values in rows
            ]
            return "\n".join(["<table>", *lines, "</table>"])
        case Table(head, rows, numeric):
            marks = [' class="numeric"' if i in numeric else "" for i in range(len(head))]
            lines = [
                "<tr>"
                + "".join(f"<{tag}{mark}>{_text(cell)}</{tag}>" for cell, mark in zip(row, marks, strict=True))
                + "</tr>"
                for tag, row in [("th", head), *(("td", row) for row in rows)]
            ]
            return "\n".join(["<table>", *lines, "</table>"])
        case Roofline():
            return f"<figure>{to_svg(block)}</figure>"
