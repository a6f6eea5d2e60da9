"""Errors as messages for people and as records for programs."""

from __future__ import annotations

from typing import Any

from modeldiff_jax.errors import ModelDiffError
from modeldiff_jax.report.escape import printable
from modeldiff_jax.runtime.environment import SCHEMA_VERSION, now, tool


def message(error: BaseException) -> str:
    """Returns the error in a few lines, the last one ended: the rule, what was got, where, and what to do."""
    if not isinstance(error, ModelDiffError):
        first_line = printable(str(error).split("\n", 1)[0])
        return f"Internal error: {type(error).__name__}: {first_line}\n  to do  report it with the output of --debug\n"
    parts = [("got", error.got), ("where", error.where), ("to do", error.fix)]
    lines = [f"  {label:<5}  {printable(text)}" for label, text in parts if text]
    return "\n".join([f"Error: {printable(error.rule)}.", *lines]) + "\n"


def failure(command: str, error: BaseException, exit_code: int) -> dict[str, Any]:
    """Returns the record that is printed in place of a result."""
    described = error if isinstance(error, ModelDiffError) else ModelDiffError("Internal error", got=str(error))
    return {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "created": now(),
        "tool": tool(),
        "error": {
            "type": type(error).__name__,
            "message": str(error),
            "rule": described.rule,
            "got": described.got,
            "where": described.where,
            "fix": described.fix,
        },
        "exit_code": exit_code,
    }
