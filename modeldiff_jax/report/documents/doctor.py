"""The report of `modeldiff doctor`."""

from __future__ import annotations

from modeldiff_jax.report.document import Block, Document, Table
from modeldiff_jax.report.documents.common import Record, counted, fields, titled_document


def doctor_report(record: Record) -> Document:
    """Returns the report of one diagnosis."""
    cache, tool, kernels = record["cache"], record["tool"], record["kernels"]
    size = f", {counted(cache['files'], 'file')}, {cache['bytes'] / 2**20:.1f} MiB" if cache["state"] == "on" else ""
    devices = [f"{device['id']}: {device['platform']} ({device['kind']})" for device in record["devices"]]
    text = fields(
        ("problems", record["problems"]),
        ("python", [f"{tool['python']}  ({record['executable']})"]),
        ("packages", [", ".join(f"{p['name']} {p['version'] or 'MISSING'}" for p in record["packages"])]),
        ("devices", devices or ["none"]),
        ("kernels", [kernels["folder"] if kernels["ok"] else "cannot be imported"]),
        ("cache", [f"{cache['state']}{size}", *(line for line in (cache["folder"], cache["reason"]) if line)]),
    )
    extras = [
        (
            extra["name"],
            extra["needed_for"],
            f"missing: {', '.join(extra['missing'])}" if extra["missing"] else "installed",
        )
        for extra in record["extras"]
    ]
    table = Table(("extra", "needed for", "state"), extras)
    # not in the table, whose cells a narrow terminal folds: these lines are to be copied
    install = fields(
        *((f"install {extra['name']}", [extra["install"]]) for extra in record["extras"] if extra["install"])
    )
    blocks: list[Block] = [text, table, install] if install.rows else [text, table]
    if record["ok"]:
        return titled_document(record, "everything needed is installed and works", "good", blocks)
    return titled_document(record, "something needed is missing or broken", "bad", blocks)
