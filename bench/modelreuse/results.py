"""Runs every method of the README on one zoo, and writes its tables.

    python -m bench.modelreuse.results FOLDER [--only METHOD ...]    evaluates; records in bench/results/modelreuse.json
    python -m bench.modelreuse.results                               writes the tables of recorded results only

Results are recorded row by row, so that a run can be stopped; outputs of models are shared by all rows of a run.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench import measure
from bench.modelreuse.folder import Zoo
from bench.modelreuse.methods import METHODS
from bench.modelreuse.protocols import PROTOCOLS
from bench.modelreuse.study import Study
from bench.tables import table

FILE = "modelreuse"
README = Path(__file__).with_name("README.md")
_KINDS = ("transfer", "quantize", "prune", "distill", "steal")
_MARK = re.compile(r"(<!-- results -->\n).*?(<!-- end of results -->)", re.DOTALL)


def rows() -> list[tuple[str, str, str, int]]:
    """Returns method, protocol, orientation and number of pairs of each row of the tables."""
    listed = [("ours", "strict", side, 100) for side in ("owner", "suspect", "both")]
    listed += [("modeldiff", "strict", side, 100) for side in ("owner", "suspect", "both")]
    listed += [(method, "strict", "owner", 100) for method in METHODS if method not in ("ours", "modeldiff")]
    listed += [(method, "pairs144", "owner", 100) for method in ("ours", "modeldiff")]
    listed += [("modeldiff", "pairs144", "suspect", 100)]
    return listed + [(method, "strict", "owner", n) for n in (10, 50, 200) for method in ("ours", "modeldiff")]


def evaluate(zoo: Zoo, only: Iterable[str] = ()) -> None:
    """Evaluates rows that are not recorded yet, and records them."""
    done = recorded().get(zoo.folder.name, {})
    studies: dict[int, Study] = {}
    for method, protocol, orientation, pairs in rows():
        name = f"{method}, {protocol}, {orientation}, {pairs}"
        if name in done or (only and method not in only):
            continue
        if pairs not in studies:
            studies = {pairs: Study(zoo, pairs)}  # one at a time, to save memory
        done[name] = PROTOCOLS[protocol](studies[pairs], METHODS[method], orientation)
        print(name, {k: done[name][k] for k in ("strict_correct", "strict_total", "auc", "seconds")}, flush=True)
        measure.record(
            "modelreuse.results", {"rows": done}, ("jax", "jaxlib", "numpy", "scipy"), file=FILE, part=zoo.folder.name
        )


def recorded() -> dict[str, dict[str, Any]]:
    """Returns recorded results as zoo -> row -> result."""
    path = measure.RESULTS / f"{FILE}.json"
    content = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return {
        name.split(", ")[1]: part["rows"] for name, part in content.items() if name.startswith("modelreuse.results")
    }


def render() -> str:
    """Returns all tables as Markdown."""
    text = ""
    content = json.loads((measure.RESULTS / f"{FILE}.json").read_text("utf-8"))
    for name, part in sorted(content.items()):
        if not name.startswith("modelreuse.results"):
            continue
        machine = part["machine"]
        text += f"### {name.split(', ')[1]}\n\n"
        text += table(
            ["method", "rule", "inputs of", "pairs", *_KINDS, "all", "AUC", "TPR 5 %", "TPR 1 %"], _counts(part["rows"])
        )
        text += "\nArea under the ROC curve, and true-positive rate at 5 % false positives, by kind:\n\n"
        text += table(["method", "inputs of", *_all_kinds(part["rows"])], _areas(part["rows"]))
        text += (
            f"\n`{part['command']}` at {part['commit']}, {machine['processor']}, {machine['cores']} cores, "
            + ", ".join(f"{package} {version}" for package, version in part["versions"].items())
            + ".\n\n"
        )
    return text


def _counts(results: Mapping[str, Any]) -> list[list[str]]:
    lines = []
    for name, row in results.items():
        method, rule, side, pairs = name.split(", ")
        kinds = [row["kinds"].get(kind, {"strict_correct": 0, "strict_total": 0}) for kind in _KINDS]
        counts = [f"{k['strict_correct']}/{k['strict_total']}" if k["strict_total"] else "" for k in (*kinds, row)]
        rates = [_number(row[rate]) for rate in ("auc", "tpr_at_5_fpr", "tpr_at_1_fpr")]
        lines.append([f"`{method}`", rule, side, pairs, *counts, *rates])
    return lines


def _all_kinds(results: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(kind for row in results.values() for kind in row["kinds"]))


def _areas(results: Mapping[str, Any]) -> list[list[str]]:
    lines = []
    for name, row in results.items():
        method, rule, side, pairs = name.split(", ")
        if (rule, pairs) == ("strict", "100"):
            kinds = [row["kinds"][kind] for kind in _all_kinds(results)]
            lines.append(
                [f"`{method}`", side, *(f"{_number(k['auc'])}, {_number(k['tpr_at_5_fpr'], 2)}" for k in kinds)]
            )
    return lines


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--only", nargs="+", default=(), metavar="METHOD")
    given = parser.parse_args()
    if given.folder:
        evaluate(Zoo(given.folder), given.only)
    README.write_text(_MARK.sub(lambda m: m[1] + "\n" + render() + m[2], README.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
