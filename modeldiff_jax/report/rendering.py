"""Renders records in any format, and gives every result its HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

from modeldiff_jax.report.documents import document
from modeldiff_jax.report.documents.profile import roofline
from modeldiff_jax.report.formats.html import to_fragment, to_html
from modeldiff_jax.report.formats.json import to_json
from modeldiff_jax.report.formats.markdown import to_markdown
from modeldiff_jax.report.formats.text import to_text

Format: TypeAlias = Literal["text", "json", "html", "md"]
FORMATS: tuple[Format, ...] = get_args(Format)


def render(record: Mapping[str, Any], form: Format, *, colour: bool = False, width: int | None = None) -> str:
    """Renders a command's record in one of `FORMATS`, ending in a newline.

    Args:
      record: the `to_dict()` of a result; its `command` names its kind.
      form: one of `FORMATS`.
      colour: whether text may hold ANSI colours.
      width: columns of the terminal that text is fitted to; None for text that is kept or read by a program.
    """
    match form:
        case "json":
            return to_json(record)
        case "html":
            return to_html(document(record))
        case "md":
            return to_markdown(document(record))
        case "text":
            return to_text(document(record), colour=colour, width=width)


def roofline_plot(record: Mapping[str, Any]) -> str:
    """Returns the roofline plot of a profile's record as the text of an SVG file."""
    return roofline(record).draw().to_svg(background=True)


class HtmlReport:
    """Gives a result that has `to_dict` an HTML page, and an HTML fragment in notebooks."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as JSON-able data, by the schema `modeldiff_jax/report/schema.json`."""
        raise NotImplementedError

    def to_html(self) -> str:
        """Returns the result as one self-contained HTML page."""
        return render(self.to_dict(), "html")

    def _repr_html_(self) -> str:
        """Returns the result as an HTML fragment whose styles apply to itself alone."""
        return to_fragment(document(self.to_dict()))
