"""Writes docs/benchmarks.md and docs/growth.svg from the results in bench/results.

python -m bench.tables
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.measure import RESULTS
from bench.plot import Line, Panel, drawn
from modeldiff_jax.report.plots.axes import Axis

DOCS = RESULTS.parent.parent / "docs"
HEAD = """# Benchmarks of the kernels

Written by `python -m bench.tables` from `bench/results/`, with the versions, the spread of the seconds and the other
contestants. Ratios are times as a share of the best peer's in the same round, two threads each: median, and in
brackets the least and the greatest of all rounds. Below 1 the kernel is faster. Compilation is only in the column of
the first call. The floor is a time that no method can beat: bytes and multiplications at the rates of the same run; for
searches the matrix product alone, by numpy, and for `largest` one maximum of each row.
"""
Rows = list[list[str]]


def render(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the page, for the results of each device by its name."""
    parts = [HEAD]
    for device, questions in sorted(results.items()):
        sections = [*_distances(questions), *_searches(questions), *_growth(questions)]
        if sections:
            parts += [f"## {device}\n", *sections]
    return "\n".join(parts)


def table(head: list[str], rows: Rows) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _under(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    return f"`{result['command']}` at {result['commit']}, {machine['processor']}, {machine['cores']} cores.\n"


def _ratio(spread: Mapping[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['min']:.2f} to {spread['max']:.2f})"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"


def _distances(questions: Mapping[str, Any]) -> Iterable[str]:
    head = ["path", "of the best peer", "peer", "ms", "floor, ms", "first call, s"]
    for name, result in questions.items():
        if name.startswith("bench_pairwise"):
            rows = [
                [
                    path.replace("_", " "),
                    _ratio(one["to_best_peer"]),
                    one["to_best_peer"]["peer"],
                    _milliseconds(one["seconds"]["modeldiff"]["median"]),
                    _milliseconds(one["needs"]["seconds"]),
                    f"{one['first_call_seconds']:.2g}",
                ]
                for path, one in result.items()
                if isinstance(one, dict) and "to_best_peer" in one
            ]
            yield f"### Distances, OpenBLAS's kind of core {result['openblas_core_type']}\n"
            yield table(head, rows)
            yield _under(result)


def _searches(questions: Mapping[str, Any]) -> Iterable[str]:
    head = ["path", "kernel", "of the best peer", "peer", "s", "floor, s", "first call, s"]
    for kind in ("free", "forced"):
        rows, commands = [], []
        for name, result in questions.items():
            if not name.startswith("bench_search, ") or name.endswith(" forced") != (kind == "forced"):
                continue
            seconds = result["seconds"]
            peers = [who for who in seconds if not who.startswith("kernel") and who != "floor"]
            best = min(peers, key=lambda who: seconds[who]["median"])
            path = name.removeprefix("bench_search, ").removesuffix(", OpenBLAS forced").replace("_", " ")
            for who in seconds:
                if who.startswith("kernel"):
                    ratio = _ratio(result["ratios"][f"{who}_to_{best}"])
                    form = who.removeprefix("kernel").removeprefix("_") or "float32"
                    times = [f"{seconds[x]['median']:.3g}" for x in (who, "floor")]
                    rows.append([path, form, ratio, best, *times, f"{result['first_call_seconds'][who]:.2g}"])
            commands.append(_under(result))
        if rows:
            yield f"### Search, self-join and selection of the ten best, OpenBLAS's kind of core {kind}\n"
            yield table(head, rows)
            yield "\n".join(dict.fromkeys(commands))


def _growth(questions: Mapping[str, Any]) -> Iterable[str]:
    if (result := questions.get("bench_growth")) is None:
        return
    rows = [
        [
            what,
            f"{int(n):,}",
            *(f"{by_contestant[who]['seconds']['median']:.3g}" for who in ("modeldiff", "faiss")),
            *(f"{by_contestant[who]['peak_bytes'] / 2**20:.0f}" for who in ("modeldiff", "faiss")),
            f"{by_contestant['modeldiff']['first_call_seconds']:.2g}",
        ]
        for what in ("search", "join")
        for n, by_contestant in result[what].items()
    ]
    yield "### Growth with the number of rows\n"
    yield f"Rows of {result['width']} numbers; search is of {result['queries']} queries, both find {result['k']}.\n"
    head = ["what", "rows", "s", "faiss, s", "peak memory, MiB", "faiss, MiB", "first call, s"]
    yield table(head, rows)
    yield "![Time and memory against rows](growth.svg)\n"
    yield _under(result)


# The plot

_COLOURS = {"modeldiff": "#1b6ca8", "faiss": "#d1495b"}


def plot(result: Mapping[str, Any]) -> str:
    """Plots time and memory against the number of rows, both axes logarithmic, as an SVG."""
    panels = []
    for unit, key in (("seconds", "seconds"), ("MiB", "peak_bytes")):
        for what in ("search", "join"):
            lines = [Line(who, colour, series(result[what], who, key)) for who, colour in _COLOURS.items()]
            x, y = (Axis.decades([point[side] for line in lines for point in line.points]) for side in (0, 1))
            panels.append(Panel(f"{what}, {unit}", lines, x, y))
    return drawn("Time and memory against rows", panels)


def series(sizes: Mapping[str, Any], who: str, key: str) -> list[tuple[float, float]]:
    """Returns (rows, seconds or MiB) of one contestant."""
    points = []
    for n, by_contestant in sizes.items():
        value = by_contestant[who][key]
        points.append((float(n), value["median"] if key == "seconds" else max(value, 1) / 2**20))
    return points


def recorded(folder: Path = RESULTS) -> dict[str, Any]:
    """Returns the content of every device's file."""
    files = sorted(folder.glob("*.json"))
    return {file.stem: json.loads(file.read_text()) for file in files if file.stem != "conformance"}


def pages(results: Mapping[str, Any]) -> dict[str, str]:
    """Returns every page by its file name."""
    growth = next((questions["bench_growth"] for questions in results.values() if "bench_growth" in questions), None)
    return {"benchmarks.md": render(results), **({} if growth is None else {"growth.svg": plot(growth)})}


if __name__ == "__main__":
    for name, text in pages(recorded()).items():
        (DOCS / name).write_text(text)
