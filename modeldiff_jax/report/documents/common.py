"""Parts that the documents of several commands share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from modeldiff_jax.report.document import Block, Document, Fields, Tone

Record: TypeAlias = Mapping[str, Any]
VERDICTS = {"reused": "reused", "no_evidence": "no evidence of reuse", "inconclusive": "inconclusive"}
"""Verdict -> its name in words."""
TONES: Mapping[str, Tone] = {"no_evidence": "good", "inconclusive": "unsure", "reused": "bad"}
"""Verdict -> its tone, the gravest last."""


def titled_document(record: Record, headline: str, tone: Tone, blocks: Sequence[Block]) -> Document:
    """Returns the document of a record: its headline and blocks, under the command's title, with date and versions."""
    return Document(f"modeldiff {record['command']}", headline, tone, blocks, _made(record))


def fields(*rows: tuple[str, Sequence[str]]) -> Fields:
    """Returns labelled values without those that have no line."""
    return Fields([(label, lines) for label, lines in rows if lines])


def model_lines(side: Record) -> list[str]:
    """Returns lines on a model: its file and format, its whole hash, its inputs and outputs."""
    return [
        f"{side['path']}  ({side['format']})",
        *([f"sha256:{side['sha256']}"] if side["sha256"] else []),
        f"{'; '.join(first_few(side['inputs']))} -> {'; '.join(first_few(side['outputs']))}",
    ]


def run_line(record: Record) -> str:
    """Returns time, device and key of a run, in one line."""
    return f"{record['seconds']['total']:.1f} s on {record['device']}, key {record['key']}"


def first_few(entries: Sequence[str], most: int = 4) -> list[str]:
    """Returns the first entries of a long list and the number of the others; the JSON has them all."""
    others = len(entries) - most
    return [*entries[:most], *([f"and {others} more"] if others > 0 else [])]


def counted(number: int, singular: str, plural: str = "") -> str:
    """Returns a number and its noun, in the singular or the plural: `1 suspect`, `3 suspects`."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def _made(record: Record) -> str:
    tool = record["tool"]
    versions = [f"{name} {version}" for name, version in (("jax", tool["jax"]), ("Python", tool["python"])) if version]
    date = datetime.fromisoformat(record["created"]).strftime("%Y-%m-%d %H:%M:%S UTC")
    return ", ".join([date, f"{tool['name']} {tool['version'] or '(not installed)'}", *versions])
