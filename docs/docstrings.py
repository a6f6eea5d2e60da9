"""An extension of griffe for the docstrings of this project.

`low, high: the range.` documents two names, each with its own type, and the full name of something that the site has a
section on becomes a link.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_GROUP = re.compile(r"( +)(\w+(?:, \w+)+): (.*)")
_FULL_NAME = re.compile(r"`(modeldiff_jax(?:\.\w+)+)`")
_LONGEST = 100
"""Characters of a description that is repeated whole; of a longer one, the first sentence is."""


class Docstrings(Extension):
    """Separates grouped names and links full names before docstrings are parsed."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrites an object's docstring."""
        if obj.docstring:
            link = r'<autoref identifier="\1" optional><code>\1</code></autoref>'
            obj.docstring.value = _FULL_NAME.sub(link, separated(obj.docstring.value))


def separated(docstring: str) -> str:
    """Returns a docstring with an entry of its own for each of several names that share one."""
    lines = docstring.split("\n")
    result: list[str] = []
    while lines:
        line = lines.pop(0)
        group = _GROUP.fullmatch(line)
        if not group:
            result.append(line)
            continue
        indent, names, text = group.groups()
        more = []
        while lines and lines[0].startswith(f"{indent} "):
            more.append(lines.pop(0))
        first, *others = names.split(", ")
        result += [f"{indent}{first}: {text}", *more]
        whole = " ".join([text, *map(str.strip, more)])
        repeated = whole if len(whole) <= _LONGEST else f"{whole.split('. ')[0].rstrip('.')}."
        result += [f"{indent}{name}: {repeated}" for name in others]
    return "\n".join(result)
