"""The report of `modeldiff profile`."""

from __future__ import annotations

from collections.abc import Sequence

from modeldiff_jax.report.document import Block, Document, Figure, Table
from modeldiff_jax.report.documents.common import VERDICTS, Record, fields, run_line, titled_document
from modeldiff_jax.report.numbers import decimal, with_prefix
from modeldiff_jax.report.plots.roofline import Roofline

_CAPTION = (
    "Each program below the limits that were measured on this device: the slope is memory, the flat lines are matrix "
    "products. The nearer to its limit, the less there is to gain."
)


def profile_report(record: Record) -> Document:
    """Returns the report of one profile."""
    machine, programs = record["machine"], record["programs"]
    products = [f"{name} {with_prefix(rate, 'FLOP/s')}" for name, rate in machine["products"].items()]
    subject = fields(
        _subject(record["subject"]),
        ("copy", [f"{with_prefix(machine['copy_bytes_per_second'], 'B/s')}, read and written"]),
        ("products", [", ".join(products)]),
        ("start", [f"{with_prefix(machine['start_seconds'], 's')} for a program that does nothing"]),
    )
    measured = Table(
        ("program", "calls", "time", "min", "max", "FLOP", "bytes", "FLOP/byte", "FLOP/s", "B/s", "limit", "share"),
        [_measured(row) for row in programs],
        frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 11}),
    )
    compiled = Table(
        ("program", "trace", "lower", "compile", "XLA's FLOP", "XLA's bytes", "temporary", "most operations"),
        [_compiled(row) for row in programs],
        frozenset({1, 2, 3, 4, 5, 6}),
    )
    run = fields(*_comparison(record), ("notes", record["notes"]), ("run", [run_line(record)]))
    blocks: list[Block] = [subject, measured, compiled, Figure(roofline(record), _CAPTION), run]
    if not programs:
        return titled_document(record, "no program was compiled", "plain", blocks)
    scope = " over all programs" if len(programs) > 1 else f"; the limit is {programs[0]['limit']}"
    return titled_document(record, f"{100 * record['share']:.0f} % of the roofline{scope}", "plain", blocks)


def roofline(record: Record) -> Roofline:
    """Returns the roofline plot of a profile."""
    machine = record["machine"]
    points = [(row["name"], row["intensity"], row["flops_per_second"]) for row in record["programs"]]
    return Roofline(machine["copy_bytes_per_second"], machine["products"], points)


def _subject(subject: Record) -> tuple[str, Sequence[str]]:
    options = [f"{name} {value}" for name, value in subject["options"].items() if value is not None]
    hashes = [f"sha256:{model['sha256']}  {model['path']}" for model in subject["models"] if model["sha256"]]
    return subject["kind"], [line for line in (subject["name"], ", ".join(options), *hashes) if line]


def _comparison(record: Record) -> list[tuple[str, Sequence[str]]]:
    compared, trace = record["comparison"], record["trace"]
    rows: list[tuple[str, Sequence[str]]] = []
    if trace:
        rows.append(("trace", [f"{trace['folder']}: {name}" for name in trace["files"]]))
    if compared:
        rows.append(("verdict", [f"{VERDICTS[compared['verdict']]}, similarity {decimal(compared['similarity'])}"]))
        rows.append(("steps", [", ".join(f"{name} {seconds:.2f} s" for name, seconds in compared["seconds"].items())]))
    return rows


def _measured(row: Record) -> tuple[str, ...]:
    seconds = row["run_seconds"]
    return (
        row["name"],
        f"{row['calls']}",
        *(with_prefix(seconds[name], "s") for name in ("median", "min", "max")),
        *(with_prefix(row[name]) for name in ("flops", "bytes")),
        f"{row['intensity']:.3g}",
        *(with_prefix(row[name]) for name in ("flops_per_second", "bytes_per_second")),
        row["limit"],
        f"{100 * row['share']:.0f} %",
    )


def _compiled(row: Record) -> tuple[str, ...]:
    seconds, xla = row["compile_seconds"], row["xla"]
    return (
        row["name"],
        *(with_prefix(seconds[name], "s") for name in ("trace", "lower", "compile")),
        *(with_prefix(value) for value in (xla["flops"], xla["bytes"], row["temporary_bytes"])),
        ", ".join(f"{entry['name']} {100 * entry['share']:.0f} %" for entry in row["operators"][:3]),
    )
