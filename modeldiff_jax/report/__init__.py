"""Records -> what a person or a program reads. Imports neither JAX nor any model code."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

from modeldiff_jax.report.documents import document, roofline
from modeldiff_jax.report.formats.html import to_html
from modeldiff_jax.report.formats.json import to_json
from modeldiff_jax.report.formats.markdown import to_markdown
from modeldiff_jax.report.formats.text import to_text
from modeldiff_jax.report.plots.roofline import to_svg

Format: TypeAlias = Literal["text", "json", "html", "md"]
FORMATS: tuple[Format, ...] = get_args(Format)


def render(record: Mapping[str, Any], form: Format, *, colour: bool = False) -> str:
    """A command's record in one of `FORMATS`, ending in a newline.

    Args:
      record: what `to_dict()` of a result gives; `command` says which kind.
      form: one of `FORMATS`.
      colour: whether text may hold ANSI colours.
    """
    match form:
        case "json":
            return to_json(record)
        case "html":
            return to_html(document(record))
        case "md":
            return to_markdown(document(record))
        case "text":
            return to_text(document(record), colour=colour)


def roofline_plot(record: Mapping[str, Any]) -> str:
    """The roofline plot of a profile's record as an SVG file."""
    return to_svg(roofline(record))
