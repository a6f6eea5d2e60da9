"""Records as JSON: plain ASCII, so that no byte of an untrusted name reaches a terminal, and no NaN."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any


def to_json(record: Mapping[str, Any]) -> str:
    """Returns the record as indented JSON, the last line ended. Numbers that are not finite become null."""
    return json.dumps(_plain(record), indent=2, allow_nan=False) + "\n"


@cache
def schema() -> dict[str, Any]:
    """Returns the JSON schema (draft 2020-12) of everything the command line prints as JSON."""
    text = files("modeldiff_jax.report").joinpath("schema.json").read_text("utf-8")
    return dict(json.loads(text))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
