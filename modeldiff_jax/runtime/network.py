"""Implements `--offline`: no network connection from this process or its children."""

from __future__ import annotations

import sys
from typing import Any

from modeldiff_jax.errors import ModelDiffError

_forbidden = False


def forbid() -> None:
    """Makes host look-ups and connections from Python an error, until the process ends."""
    global _forbidden
    if not _forbidden:
        sys.addaudithook(_refuse)
    _forbidden = True


def is_forbidden() -> bool:
    """Returns whether `forbid` was called."""
    return _forbidden


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    lookup = event in ("socket.getaddrinfo", "socket.gethostbyname")
    if lookup or (event == "socket.connect" and isinstance(arguments[1], tuple)):
        raise ModelDiffError("--offline allows no network connection", got=repr(arguments[1:]), where=event)
