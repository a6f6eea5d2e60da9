"""Escapes untrusted text: characters that a terminal or a Markdown viewer would act on are shown instead."""

from __future__ import annotations

_LONGEST = 400
_MARKDOWN = {ord(c): f"\\{c}" for c in "\\`*_{}[]|~#"} | {
    ord("<"): "&lt;",
    ord(">"): "&gt;",
    ord("&"): "&amp;",
    ord("@"): "@<!-- -->",  # an entity would still become a mention
}


def printable(text: str) -> str:
    """Returns one line of visible characters; controls, line breaks and bidirectional marks are escaped (`\\x1b`)."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else _visible(c) for c in text)


def markdown(text: str) -> str:
    """Returns `printable` text that Markdown shows literally: no emphasis, code, links, mentions or HTML."""
    return printable(text).translate(_MARKDOWN).replace("://", "&colon;//").replace("www.", "www&period;")


def _visible(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
