"""Exit codes, and how they follow from a record or its absence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

FINISHED: Final = 0
FINDING: Final = 1
"""A verdict at or above `--fail-on`."""
UNFINISHED: Final = 2
"""Bad usage, a model that cannot be read or run, a limit, a result that cannot be written, a check that failed; and a
result without some of the models that were asked for."""
INTERRUPTED: Final = 130
"""As shells have it: 128 and the number of the signal."""
SEVERITIES = ("no_evidence", "inconclusive", "reused")
"""Verdicts, the gravest last."""


def exit_code(record: Mapping[str, Any], fail_on: str | None) -> int:
    """Returns the exit code of a command that gave a record.

    A finding outweighs models that were left out: it holds without them, while their absence could hide one.

    Args:
      record: of any command.
      fail_on: the least grave verdict that makes the code `FINDING`; None for never.
    """
    verdicts = [record.get("verdict"), *(row.get("verdict") for row in record.get("rows", ()))]
    severities = [SEVERITIES.index(verdict) for verdict in verdicts if verdict]
    if fail_on and severities and max(severities) >= SEVERITIES.index(fail_on):
        return FINDING
    differs = (record.get("check") or {}).get("agrees") is False
    return UNFINISHED if record.get("ok") is False or differs or record.get("failures") else FINISHED
