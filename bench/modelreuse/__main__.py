"""Command line of the benchmark.

python -m bench.modelreuse build FOLDER [--size small|full] [--seed 0] [--beyond]
python -m bench.modelreuse evaluate FOLDER [--protocol strict|pairs144|roc] [--method ours|modeldiff|...]
    [--orientation owner|suspect|both] [--pairs 100] [--format text|json]
python -m bench.modelreuse lineage FOLDER [--method ours|ddv] [--pairs 100] [--sets 200] [--format text|json] [--fit]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from modeldiff_jax.errors import ModelDiffError


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.modelreuse", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("build", help="train the zoo, or what is missing of it")
    make.add_argument("folder", type=Path)
    make.add_argument("--size", choices=["small", "full"], default="full")
    make.add_argument("--seed", type=int, default=0)
    make.add_argument("--beyond", action="store_true", help="also what the paper lacks")
    judge = commands.add_parser("evaluate", help="how well a method tells who came from whom")
    judge.add_argument("folder", type=Path)
    judge.add_argument("--protocol", default="strict", choices=["strict", "pairs144", "roc"])
    judge.add_argument("--method", default="ours")
    judge.add_argument("--orientation", default="suspect", choices=["owner", "suspect", "both"])
    judge.add_argument("--pairs", type=int, default=100)
    judge.add_argument("--key", type=int, default=0)
    judge.add_argument("--format", default="text", choices=["text", "json"])
    trees = commands.add_parser("lineage", help="how well trees of descent are told")
    trees.add_argument("folder", type=Path)
    trees.add_argument("--method", default="ours", choices=["ours", "ddv"])
    trees.add_argument("--pairs", type=int, default=100)
    trees.add_argument("--key", type=int, default=0)
    trees.add_argument("--sets", type=int, default=200, help="sets of ten models, of each kind")
    trees.add_argument("--fit", action="store_true", help="print the weights of clues that this zoo gives instead")
    trees.add_argument("--format", default="text", choices=["text", "json"])
    given = parser.parse_args(arguments)
    try:
        if given.command == "build":
            from bench.modelreuse.build import SIZES, build

            build(given.folder, SIZES[given.size], given.seed, given.beyond)
        elif given.command == "lineage":
            print(kinship(given))
        else:
            result = evaluate(given)
            print(json.dumps(result, indent=1) if given.format == "json" else table(result))
    except ModelDiffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def evaluate(given: argparse.Namespace) -> dict[str, Any]:
    """The result of one method under one protocol."""
    from bench.modelreuse.folder import Zoo
    from bench.modelreuse.methods import METHODS
    from bench.modelreuse.protocols import PROTOCOLS
    from bench.modelreuse.study import Study
    from modeldiff_jax.errors import InvalidInputError

    if given.method not in METHODS:
        raise InvalidInputError(f"`--method` is one of {', '.join(METHODS)}", got=repr(given.method))
    if given.pairs < 2:
        raise InvalidInputError("`--pairs` is at least 2", got=str(given.pairs))
    study = Study(Zoo(given.folder), given.pairs, given.key)
    asked = {name: getattr(given, name) for name in ("protocol", "method", "orientation", "pairs", "key")}
    return {**asked, **PROTOCOLS[given.protocol](study, METHODS[given.method], given.orientation)}


def kinship(given: argparse.Namespace) -> str:
    """Scores of trees of descent, or weights of clues, as text."""
    from bench.modelreuse import lineage
    from bench.modelreuse.folder import Zoo
    from bench.modelreuse.study import Study

    study = Study(Zoo(given.folder), given.pairs, given.key)
    if given.fit:
        return json.dumps(lineage.fitted(study, given.sets), indent=1)
    return lineage.as_text(lineage.lineage(study, given.method, given.sets), given.format)


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    head = f"{'kind':18} {'correct':>9} {'AUC':>7} {'TPR@5%':>7} {'TPR@1%':>7}"
    lines = [
        f"{result['method']}, {result['protocol']}, inputs of the {result['orientation']}, {result['pairs']} pairs"
    ]
    rows = {**result["kinds"], "all": result}
    for kind, row in rows.items():
        count = f"{row['strict_correct']}/{row['strict_total']}" if row["strict_total"] else ""
        numbers = (row[name] for name in ("auc", "tpr_at_5_fpr", "tpr_at_1_fpr"))
        lines.append(f"{kind:18} {count:>9} " + " ".join(f"{v:7.3f}" if v is not None else " " * 7 for v in numbers))
    return "\n".join([lines[0], head, *lines[1:], f"{result['seconds']:.1f} s"])


if __name__ == "__main__":
    sys.exit(main())
