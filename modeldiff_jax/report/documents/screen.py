"""The report of `modeldiff screen`."""

from __future__ import annotations

from modeldiff_jax.report.document import Document, Figure, Table
from modeldiff_jax.report.documents.common import (
    TONES,
    VERDICTS,
    Record,
    counted,
    fields,
    first_few,
    model_lines,
    run_line,
    titled_document,
)
from modeldiff_jax.report.documents.compare import DEVIATIONS, SIMILARITY
from modeldiff_jax.report.numbers import decimal, p_value
from modeldiff_jax.report.plots.distribution import Distribution, ScoreRow

_MOST_DRAWN = 40
"""Most suspects in the plot."""


def screen_report(record: Record) -> Document:
    """Returns the report of one screening, a row for each suspect."""
    rows = record["rows"]
    gravest = max((row["verdict"] for row in rows), key=list(TONES).index, default="no_evidence")
    table = Table(
        ("suspect", "verdict", "p-value", "tail", "adjusted", "score", "similarity", "supported by"),
        [
            (
                row["suspect"]["path"],
                _verdict(row),
                p_value(row["p_value"]),
                p_value(row["tail"] and row["tail"]["p_value"]),
                p_value(row["adjusted_p_value"]),
                decimal(row["score"], 2),
                decimal(row["similarity"], 3),
                ", ".join(each["name"] for each in row["representations"] if each["supports"] == "reuse") or "-",
            )
            for row in rows
        ],
        frozenset({2, 3, 4, 5, 6}),
        [TONES[row["verdict"]] for row in rows],
    )
    tested = sum(row["adjusted_p_value"] is not None for row in rows)
    adjusted = f"p-values for {counted(tested, 'suspect')} by {record['correction']}; verdicts are at alpha"
    text = fields(
        ("target", model_lines(record["target"])),
        ("adjusted", [f"{adjusted} {record['alpha']:g}"]),
        ("suspects", first_few([_hash(row["suspect"]) for row in rows if row["suspect"]["sha256"]], 20)),
        ("probes", [record["probe_set_id"]]),
        ("notes", first_few(record["notes"])),
        ("run", [run_line(record)]),
    )
    return titled_document(record, _headline(record), TONES[gravest], [table, *_figure(record), text])


def _headline(record: Record) -> str:
    """Returns the numbers of suspects by verdict; an undecided one must not read as cleared."""
    rows = record["rows"]
    count = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in TONES}
    needed = max((row["references_needed"] or 0 for row in rows), default=0)
    parts = [f"{count['reused']} of {counted(len(rows), 'suspect')} reused"]
    if count["inconclusive"]:
        parts.append(f"{count['inconclusive']} undecided, for lack of references ({needed} would decide)")
    if count["no_evidence"]:
        parts.append(f"{count['no_evidence']} without evidence of reuse")
    failed = sum(failure["role"] == "suspect" for failure in record["failures"])
    return "; ".join([*parts, *([f"{failed} not measured"] if failed else [])])


def _verdict(row: Record) -> str:
    """Returns the verdict, with its basis where that is not the rank among references."""
    basis = f" ({row['basis']})" if row["basis"] in ("identity", "tail") else ""
    return f"{VERDICTS[row['verdict']]}{basis}"


def _hash(side: Record) -> str:
    return f"sha256:{side['sha256']}  {side['path']}"


def _figure(record: Record) -> list[Figure]:
    """Returns the plot of the ranked suspects; none where no suspect is ranked."""
    ranked = [(row, "related" if "related" in row["null_scores"] else "similarity") for row in record["rows"]]
    drawn = [
        ScoreRow(row["suspect"]["path"], row["score"], row["null_scores"][name])
        for row, name in ranked
        if name in row["null_scores"]
    ]
    if not drawn:
        return []
    label = DEVIATIONS if any(name == "related" for _, name in ranked) else SIMILARITY
    left_out = f" The first {_MOST_DRAWN} of {len(drawn)} suspects." if len(drawn) > _MOST_DRAWN else ""
    caption = f"Each suspect among references: further to the right is stronger evidence of reuse.{left_out}"
    return [Figure(Distribution(drawn[:_MOST_DRAWN], label), caption)]
