"""A record (what `to_dict()` gives) -> a `Document`: what a person is told, before any format decides how it looks.

Strings in a document are data, not markup: model names, node names and paths are a stranger's text, and each format
escapes every string it prints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from modeldiff_jax.report.plots.roofline import Roofline

Tone: TypeAlias = Literal["plain", "good", "bad", "unsure"]
Record: TypeAlias = Mapping[str, Any]
WORDS = {"reused": "reused", "no_evidence": "no evidence of reuse", "inconclusive": "inconclusive"}
MEANING = {
    "reused": "the suspect reacts to the probes as no unrelated model would be expected to",
    "no_evidence": "the suspect is no more like the target than unrelated models are",
    "inconclusive": "nothing can be concluded at this error rate",
}
_WORTH_SAYING = 0.05
"""Support below which another parent is not named."""
TONES: Mapping[str, Tone] = {"no_evidence": "good", "inconclusive": "unsure", "reused": "bad"}


@dataclass(frozen=True, slots=True)
class Fields:
    """Labelled values; a value is one or more lines."""

    rows: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of text. `numeric` are the columns to align right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()


Block: TypeAlias = Fields | Table | Roofline


@dataclass(frozen=True, slots=True)
class Document:
    """A title, the one line that matters most and its tone, and the rest."""

    title: str
    headline: str
    tone: Tone
    blocks: Sequence[Block]


def document(record: Record) -> Document:
    """The document of any command's record."""
    return _DOCUMENTS[record["command"]](record)


def _compare(record: Record) -> Document:
    verdict, p_value = record["verdict"], record["p_value"]
    rows: list[tuple[str, Sequence[str]]] = [
        ("why", [record["reason"]]),
        ("similarity", [f"{number(record['similarity'])}  (cosine of the decision distance vectors, -1 to 1)"]),
        (
            "p-value",
            [
                "none without --references"
                if p_value is None
                else f"{p_value:.3g} at alpha {record['alpha']:g}, by {record['calibration']}"
            ],
        ),
        ("target", _side(record["target"])),
        ("suspect", _side(record["suspect"])),
        ("evidence", [f"{name} {number(score)}" for name, score in record["evidence"].items()]),
    ]
    scores = [reference["similarity"] for reference in record["references"]]
    if scores:
        rows.append(("references", [f"{len(scores)}, similarity {number(min(scores))} to {number(max(scores))}"]))
    counted = sum(reference["counted"] for reference in record["references"])
    for says in ("for", "neither", "against"):
        views = [view for view in record["views"] if view["says"] == says]
        rows.append(
            (
                f"speaks {says}",
                [f"{v['name']} {number(v['score'])}  (as high: {v['as_high']} of {counted})" for v in views],
            )
        )
    rows += [
        ("probes", [_probes(probes) for probes in record["probes"]]),
        ("queries", [", ".join(f"{side} {count:,}" for side, count in record["queries"].items())]),
        ("adapted", _few([f"{side}: {step}" for side, steps in record["adaptations"].items() for step in steps])),
        ("notes", _few(record["notes"])),
        ("run", [_run(record)]),
    ]
    return Document(
        "modeldiff compare",
        f"{WORDS[verdict]}: {MEANING[verdict]}",
        TONES[verdict],
        [Fields([(label, lines) for label, lines in rows if lines])],
    )


def _screen(record: Record) -> Document:
    rows = record["rows"]
    found = sum(row["verdict"] == "reused" for row in rows)
    tone = max((row["verdict"] for row in rows), key=list(TONES).index, default="no_evidence")
    table = [
        (
            row["suspect"]["path"],
            number(row["similarity"], 3),
            number(row["score"], 2),
            *("-" if row[name] is None else f"{row[name]:.3g}" for name in ("p_value", "adjusted_p_value")),
            WORDS[row["verdict"]],
            ", ".join(view["name"] for view in row["views"] if view["says"] == "for") or "-",
        )
        for row in rows
    ]
    header = ("suspect", "similarity", "score", "p-value", "adjusted", "verdict", "speaks for")
    notes: list[tuple[str, Sequence[str]]] = [
        ("target", _side(record["target"])),
        ("adjusted", [f"for {len(rows)} suspects by {record['correction']}, held against alpha {record['alpha']:g}"]),
        ("notes", _few(record["notes"])),
        ("run", [_run(record)]),
    ]
    return Document(
        "modeldiff screen",
        f"{found} of {len(rows)} suspects: reused",
        TONES[tone],
        [Table(header, table, frozenset({1, 2, 3, 4})), Fields([(label, lines) for label, lines in notes if lines])],
    )


def _lineage(record: Record) -> Document:
    rows = record["rows"]

    def name(number: int | None) -> str:
        return "none of these" if number is None else str(rows[number]["model"]["path"])

    def below(parent: int | None, depth: int) -> Iterator[tuple[str, ...]]:
        for i, row in enumerate(rows):
            if row["parent"] == parent:
                others = [
                    each for each in row["likely"] if each["parent"] != parent and each["support"] >= _WORTH_SAYING
                ]
                yield (
                    "  " * depth + name(i),
                    name(parent),
                    f"{row['support']:.2f}",
                    ", ".join(f"{name(each['parent'])} {each['support']:.2f}" for each in others) or "-",
                )
                yield from below(i, depth + 1)

    roots = sum(row["parent"] is None for row in rows)
    notes = [
        ("pairs", [f"{record['n_pairs']} on each model"]),
        ("notes", _few(record["notes"])),
        ("run", [_run(record)]),
    ]
    return Document(
        "modeldiff lineage",
        f"{len(rows)} models, {roots} of them from none of the others",
        "plain",
        [
            Table(("model", "descends from", "support", "or from"), list(below(None, 0)), frozenset({2})),
            Fields([(label, lines) for label, lines in notes if lines]),
        ],
    )


def _side(side: Record) -> list[str]:
    digest = f", sha256 {side['sha256'][:16]}" if side["sha256"] else ""
    return [
        f"{side['path']}  ({side['format']}{digest})",
        f"{'; '.join(_few(side['inputs']))} -> {'; '.join(_few(side['outputs']))}",
    ]


def _run(record: Record) -> str:
    return f"{record['seconds']['total']:.1f} s on {record['device']}, key {record['key']}"


def _probes(probes: Record) -> str:
    made = "given" if probes["made_on"] == "given" else f"made on the {probes['made_on']}"
    return f"{made}: {probes['n_pairs']} pairs, {probes.get('method', 'ready-made')}, {probes['probe_set_id']}"


def _convert(record: Record) -> Document:
    model, check = record["model"], record["check"]
    operators = [f"{name} {count}" for name, count in model["operators"].items()]
    rows: list[tuple[str, Sequence[str]]] = [
        ("model", [f"{model['path']}  ({model['format']}, sha256 {model['sha256'][:16]})"]),
        ("inputs", _few(model["inputs"])),
        ("outputs", _few(model["outputs"])),
        ("opsets", [", ".join(f"{domain} {version}" for domain, version in model["opsets"].items())]),
        ("nodes", [f"{model['nodes_in_file']:,} in the file, {model['nodes']:,} after folding"]),
        ("operators", [", ".join(_few(operators, 12))]),
        ("parameters", [f"{model['parameters']:,}, {model['parameter_bytes'] / 2**20:.1f} MiB"]),
    ]
    if check is None:
        return Document("modeldiff convert", "converted; --check runs it beside onnxruntime", "plain", [Fields(rows)])
    fixed = [f"{name} = {value}" for name, value in check["bound"].items()]
    rows += [
        ("checked on", [", ".join(_few([*(f"{n}: {_sizes(shape)}" for n, shape in check["inputs"].items()), *fixed]))]),
        (
            "time",
            [
                f"{1e3 * check['run_seconds']:.3g} ms a call, {check['ratio']:.2f} times {check['runtime']}; "
                f"compiled in {check['compile_seconds']:.1f} s"
            ],
        ),
    ]
    outputs = [
        (
            output["name"],
            f"{output['dtype']} {_sizes(output['shape'])}",
            number(output["max_error"]),
            number(output["allowed"]),
            number(output["value_range"]),
            "agrees" if output["agrees"] else "DIFFERS",
        )
        for output in check["outputs"]
    ]
    agrees = check["agrees"]
    columns = ("output", "type and shape", "largest error", "allowed", "range", "")
    return Document(
        "modeldiff convert",
        f"{'agrees with' if agrees else 'DIFFERS from'} {check['runtime']}",
        "good" if agrees else "bad",
        [Fields(rows), Table(columns, outputs, frozenset({2, 3, 4}))],
    )


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _doctor(record: Record) -> Document:
    cache, tool, kernels = record["cache"], record["tool"], record["kernels"]
    held = f", {cache['files']} files, {cache['bytes'] / 2**20:.1f} MiB" if cache["state"] == "on" else ""
    devices = [f"{device['id']}: {device['platform']} ({device['kind']})" for device in record["devices"]]
    rows: list[tuple[str, Sequence[str]]] = [
        ("problems", record["problems"]),
        ("modeldiff", [tool["version"] or "not installed"]),
        ("python", [f"{tool['python']}  ({record['executable']})"]),
        ("packages", [", ".join(f"{p['name']} {p['version'] or 'MISSING'}" for p in record["packages"])]),
        ("devices", devices or ["none"]),
        ("kernels", [kernels["folder"] if kernels["ok"] else "do not import"]),
        ("compiled", [f"{cache['state']}{held}", *(text for text in (cache["folder"], cache["reason"]) if text)]),
    ]
    extras = [
        (
            extra["name"],
            extra["needed_for"],
            f"missing: {', '.join(extra['missing'])}" if extra["missing"] else "installed",
            extra["install"] or "",
        )
        for extra in record["extras"]
    ]
    return Document(
        "modeldiff doctor",
        "everything needed is here" if record["ok"] else "something is missing or broken",
        "good" if record["ok"] else "bad",
        [
            Fields([(label, lines) for label, lines in rows if lines]),
            Table(("extra", "needed for", "state", "install with"), extras),
        ],
    )


def _demo(record: Record) -> Document:
    compared = sum(row["verdict"] is not None for row in record["rows"])
    return Document(
        "modeldiff demo",
        f"{compared} models compared with one teacher",
        "plain",
        [
            Table(
                ("model", "kind", "made by", "classes", "accuracy", "similarity", "p-value", "verdict"),
                [
                    (
                        row["name"],
                        row["kind"],
                        row["how"],
                        str(row["classes"]),
                        number(row["accuracy"], 3),
                        number(row["similarity"], 3),
                        "" if row["p_value"] is None else f"{row['p_value']:.3g}",
                        WORDS[row["verdict"]] if row["verdict"] else "",
                    )
                    for row in record["rows"]
                ],
                frozenset({3, 4, 5, 6}),
            ),
            Fields([("notes", record["notes"]), ("run", [_run(record)])]),
        ],
    )


def roofline(record: Record) -> Roofline:
    """The plot of a profile."""
    machine = record["machine"]
    rows = [(row["name"], row["intensity"], row["flops_per_second"]) for row in record["programs"]]
    return Roofline(machine["copy_bytes_per_second"], machine["products"], rows)


def _profile(record: Record) -> Document:
    subject, machine, programs = record["subject"], record["machine"], record["programs"]
    options = [f"{name} {value}" for name, value in subject["options"].items() if value is not None]
    rows: list[tuple[str, Sequence[str]]] = [
        (subject["kind"], [subject["name"], ", ".join(options)]),
        ("copy", [f"{scaled(machine['copy_bytes_per_second'])}B/s, read and written"]),
        ("products", [", ".join(f"{name} {scaled(rate)}FLOP/s" for name, rate in machine["products"].items())]),
        ("start", [f"{scaled(machine['start_seconds'])}s for a program that does nothing"]),
    ]
    blocks: list[Block] = [
        Fields([(label, [line for line in lines if line]) for label, lines in rows]),
        Table(
            ("program", "calls", "time", "min", "max", "FLOP", "bytes", "FLOP/byte", "FLOP/s", "B/s", "limit", "share"),
            [_profiled(row) for row in programs],
            frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 11}),
        ),
        Table(
            ("program", "trace", "lower", "compile", "XLA's FLOP", "XLA's bytes", "temporary", "most operations"),
            [_compiled(row) for row in programs],
            frozenset({1, 2, 3, 4, 5, 6}),
        ),
        roofline(record),
    ]
    compared, trace = record["comparison"], record["trace"]
    rest: list[tuple[str, Sequence[str]]] = [
        ("trace", [f"{trace['folder']}: {name}" for name in trace["files"]] if trace else []),
        ("verdict", [f"{WORDS[compared['verdict']]}, similarity {number(compared['similarity'])}"] if compared else []),
        (
            "steps",
            [", ".join(f"{name} {seconds:.2f} s" for name, seconds in compared["seconds"].items())] if compared else [],
        ),
        ("notes", record["notes"]),
        ("run", [_run(record)]),
    ]
    blocks.append(Fields([(label, lines) for label, lines in rest if lines]))
    together = " in all" if len(programs) > 1 else f"; the limit is {programs[0]['limit']}" if programs else ""
    share = f"{100 * record['share']:.0f} % of the roofline" if programs else "no program was compiled"
    return Document("modeldiff profile", f"{share}{together}", "plain", blocks)


def _profiled(row: Record) -> tuple[str, ...]:
    seconds = row["run_seconds"]
    return (
        row["name"],
        f"{row['calls']}",
        *(f"{scaled(seconds[name])}s" for name in ("median", "min", "max")),
        *(scaled(row[name]).strip() for name in ("flops", "bytes")),
        f"{row['intensity']:.3g}",
        *(scaled(row[name]).strip() for name in ("flops_per_second", "bytes_per_second")),
        row["limit"],
        f"{100 * row['share']:.0f} %",
    )


def _compiled(row: Record) -> tuple[str, ...]:
    seconds, xla = row["compile_seconds"], row["xla"]
    return (
        row["name"],
        *(f"{scaled(seconds[name])}s" for name in ("trace", "lower", "compile")),
        *(scaled(value).strip() for value in (xla["flops"], xla["bytes"], row["temporary_bytes"])),
        ", ".join(f"{entry['name']} {100 * entry['share']:.0f} %" for entry in row["operators"][:3]),
    )


_DOCUMENTS: Mapping[str, Callable[[Record], Document]] = {
    "compare": _compare,
    "convert": _convert,
    "doctor": _doctor,
    "demo": _demo,
    "profile": _profile,
    "screen": _screen,
    "lineage": _lineage,
}


def number(value: float | None, digits: int = 4) -> str:
    """A score in fixed point, a tiny one in powers of ten, an absent one as a dash."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.1e}" if 0 < abs(value) < 10**-digits else f"{value:.{digits}f}"


def scaled(value: float | None) -> str:
    """Three digits and a decimal prefix, for a unit to follow: `12.3 m`, `40.1 G`; an absent value as a dash."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return "0 "
    power = max(-4, min(5, math.floor(math.log10(abs(value)) / 3 + 1e-9)))
    return f"{value / 1000.0**power:.3g} {'pnum kMGTP'[power + 4].strip()}"


def _few(entries: Sequence[str], most: int = 4) -> list[str]:
    """The first entries of a list that may be long, and how many more there are; the JSON has them all."""
    more = len(entries) - most
    return [*entries[:most], *([f"and {more} more"] if more > 0 else [])]
