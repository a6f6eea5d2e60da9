"""The report of `modeldiff convert`."""

from __future__ import annotations

from collections.abc import Sequence

from modeldiff_jax.report.document import Block, Document, Table
from modeldiff_jax.report.documents.common import Record, fields, first_few, titled_document
from modeldiff_jax.report.numbers import decimal


def convert_report(record: Record) -> Document:
    """Returns the report of one conversion, and of the check against the reference runtime if there was one."""
    model, check = record["model"], record["check"]
    operators = [f"{name} {count}" for name, count in model["operators"].items()]
    rows: list[tuple[str, Sequence[str]]] = [
        ("model", [f"{model['path']}  ({model['format']})"]),
        ("sha256", [model["sha256"]] if model["sha256"] else []),
        ("inputs", first_few(model["inputs"])),
        ("outputs", first_few(model["outputs"])),
        ("opsets", [", ".join(f"{domain} {version}" for domain, version in model["opsets"].items())]),
        ("nodes", [f"{model['nodes_in_file']:,} in the file, {model['nodes']:,} after folding"]),
        ("operators", [", ".join(first_few(operators, 12))]),
        ("parameters", [f"{model['parameters']:,}, {model['parameter_bytes'] / 2**20:.1f} MiB"]),
    ]
    if check is None:
        return titled_document(
            record, "converted; --check compares it with the reference runtime", "plain", [fields(*rows)]
        )
    agreement = "agrees with" if check["agrees"] else "DIFFERS from"
    headline = f"{agreement} {check['runtime']}"
    blocks: list[Block] = [fields(*rows, *_check_rows(check)), _outputs(check)]
    return titled_document(record, headline, "good" if check["agrees"] else "bad", blocks)


def _check_rows(check: Record) -> list[tuple[str, Sequence[str]]]:
    inputs = [f"{name}: {_sizes(shape)}" for name, shape in check["inputs"].items()]
    fixed = [f"{name} = {value}" for name, value in check["bound"].items()]
    time = f"{1e3 * check['run_seconds']:.3g} ms per call, {check['ratio']:.2f} times {check['runtime']}"
    return [
        ("checked on", [", ".join(first_few([*inputs, *fixed]))]),
        ("time", [f"{time}; compiled in {check['compile_seconds']:.1f} s"]),
    ]


def _outputs(check: Record) -> Table:
    rows = [
        (
            output["name"],
            f"{output['dtype']} {_sizes(output['shape'])}",
            decimal(output["max_error"]),
            decimal(output["allowed"]),
            decimal(output["value_range"]),
            "agrees" if output["agrees"] else "DIFFERS",
        )
        for output in check["outputs"]
    ]
    columns = ("output", "type and shape", "largest error", "allowed", "range of values", "")
    return Table(columns, rows, frozenset({2, 3, 4}))


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
