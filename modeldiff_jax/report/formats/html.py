"""Documents as HTML: a whole page, or a fragment for a notebook.

A page has no script and loads nothing, so it can be mailed and filed. A fragment carries styles that apply to itself
alone. Neither sets a colour for its text or background, so both are readable on light and on dark; one style sheet
serves a wide window, a phone and paper.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from modeldiff_jax.report.document import Document, Fields, Figure, Table
from modeldiff_jax.report.escape import printable
from modeldiff_jax.report.plots.axes import Drawing

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_LONGEST_WORD = 32
"""Characters beyond which a word is broken anywhere: hashes, and names made to push other columns aside."""


def to_html(document: Document) -> str:
    """Returns the document as a whole page, the last line ended."""
    return _render("page.html", document)


def to_fragment(document: Document) -> str:
    """Returns the document as one element with its styles, to be put into another page."""
    return _render("fragment.html", document)


def _render(template: str, document: Document) -> str:
    return _environment().get_template(template).render(document=document, style=_style()).strip() + "\n"


@cache
def _style() -> Markup:
    from markupsafe import Markup

    return Markup(files(__package__).joinpath("templates", "style.css").read_text("utf-8"))


@cache
def _environment() -> Environment:
    """Returns the templates' environment, which escapes all strings and makes unprintable characters visible."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("modeldiff_jax.report.formats"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.tests.update(
        fields=lambda block: isinstance(block, Fields),
        table=lambda block: isinstance(block, Table),
        figure=lambda block: isinstance(block, Figure),
    )
    environment.filters.update(breakable=_breakable, svg=_svg)
    return environment


def _finalize(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _breakable(value: str) -> Markup:
    """Returns untrusted text that a narrow column breaks after the separators of a path, or within very long words."""
    from markupsafe import Markup, escape

    parts = []
    for word in re.split(r"(\s+)", printable(value)):
        pieces = Markup("<wbr>").join(escape(piece) for piece in re.findall(r"[^/\\_:.,-]*[/\\_:.,-]*", word) if piece)
        too_long = any(len(piece) > _LONGEST_WORD for piece in re.split(r"[/\\_:.,-]", word))
        parts.append(Markup('<span class="long">{}</span>').format(pieces) if too_long else pieces)
    return Markup("").join(parts)


def _svg(drawing: Drawing) -> Markup:
    from markupsafe import Markup

    return Markup(drawing.to_svg().strip())  # escaped where it was drawn
