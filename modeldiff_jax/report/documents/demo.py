"""The report of `modeldiff demo`."""

from __future__ import annotations

from modeldiff_jax.report.document import Document, Table
from modeldiff_jax.report.documents.common import TONES, VERDICTS, Record, fields, run_line, titled_document
from modeldiff_jax.report.numbers import decimal, p_value


def demo_report(record: Record) -> Document:
    """Returns the report of one run of the demo, a row for each model."""
    rows = record["rows"]
    compared = sum(row["verdict"] is not None for row in rows)
    table = Table(
        ("model", "kind", "made by", "classes", "accuracy", "similarity", "p-value", "verdict"),
        [
            (
                row["name"],
                row["kind"],
                row["how"],
                str(row["classes"]),
                decimal(row["accuracy"], 3),
                decimal(row["similarity"], 3) if row["verdict"] else "",
                p_value(row["p_value"]) if row["verdict"] else "",
                VERDICTS[row["verdict"]] if row["verdict"] else "",
            )
            for row in rows
        ],
        frozenset({3, 4, 5, 6}),
        [TONES[row["verdict"]] if row["verdict"] else "plain" for row in rows],
    )
    text = fields(("notes", record["notes"]), ("run", [run_line(record)]))
    return titled_document(record, f"{compared} models compared with one teacher", "plain", [table, text])
