"""The report of `modeldiff lineage`."""

from __future__ import annotations

from collections.abc import Iterator

from modeldiff_jax.report.document import Document, Table
from modeldiff_jax.report.documents.common import Record, counted, fields, first_few, run_line, titled_document

_LEAST_SUPPORT = 0.05
"""Support below which another parent is not named."""


def lineage_report(record: Record) -> Document:
    """Returns the report of one lineage: children are indented below their parents."""
    rows = record["rows"]

    def name(number: int | None) -> str:
        return "none of these" if number is None else str(rows[number]["model"]["path"])

    def descendants(parent: int | None, depth: int) -> Iterator[tuple[str, ...]]:
        for i, row in enumerate(rows):
            if row["parent"] == parent:
                others = [
                    f"{name(each['parent'])} {each['support']:.2f}"
                    for each in row["likely"]
                    if each["parent"] != parent and each["support"] >= _LEAST_SUPPORT
                ]
                yield "  " * depth + name(i), name(parent), f"{row['support']:.2f}", ", ".join(others) or "-"
                yield from descendants(i, depth + 1)

    roots = sum(row["parent"] is None for row in rows)
    hashes = [f"sha256:{row['model']['sha256']}  {name(i)}" for i, row in enumerate(rows) if row["model"]["sha256"]]
    table = Table(("model", "descends from", "support", "or from"), list(descendants(None, 0)), frozenset({2}))
    text = fields(
        ("probes", [f"{counted(record['n_pairs'], 'pair')} made on each model"]),
        ("models", first_few(hashes, 20)),
        ("notes", first_few(record["notes"])),
        ("run", [run_line(record)]),
    )
    descend = f"{roots} {'descends' if roots == 1 else 'descend'} from none of the others"
    return titled_document(record, f"{counted(len(rows), 'model')}, {descend}", "plain", [table, text])
