"""Command line of the benchmark.

python -m bench.modelreuse build FOLDER [--size small|full|population|track] [--seed 0] [--beyond]
python -m bench.modelreuse evaluate FOLDER [--protocol strict|pairs144|roc] [--method ours|modeldiff|...]
    [--orientation owner|suspect|both] [--pairs 100] [--access outputs|probabilities|top-K|labels] [--black-box]
    [--format text|json]
python -m bench.modelreuse reliability FOLDER [--tests 2000] [--references N] [--any-architecture] [--pairs 100]
    [--plot FILE.svg] [--format text|json]
python -m bench.modelreuse null FOLDER... [--owners 40] [--write]
python -m bench.modelreuse adversary FOLDER [--pairs 100] [--steps 300] [--keys 16] [--plot FILE] [--format text|json]
python -m bench.modelreuse access FOLDER [--pairs 100] [--format text|json]
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
    make.add_argument("--size", choices=["small", "full", "population", "track"], default="full")
    make.add_argument("--seed", type=int, default=0)
    make.add_argument("--beyond", action="store_true", help="also what the paper lacks")
    judge = commands.add_parser("evaluate", help="how well a method tells who came from whom")
    judge.add_argument("folder", type=Path)
    judge.add_argument("--protocol", default="strict", choices=["strict", "pairs144", "roc"])
    judge.add_argument("--method", default="ours")
    judge.add_argument("--orientation", default="suspect", choices=["owner", "suspect", "both"])
    judge.add_argument("--pairs", type=int, default=100)
    judge.add_argument("--key", type=int, default=0)
    judge.add_argument("--access", default="outputs", metavar="outputs|probabilities|top-K|labels", help="what is told")
    judge.add_argument("--black-box", action="store_true", help="partners by asking, not by gradients")
    judge.add_argument("--format", default="text", choices=["text", "json"])
    trust = commands.add_parser("reliability", help="whether p-values hold")
    trust.add_argument("folder", type=Path)
    trust.add_argument("--tests", type=int, default=2000, help="unrelated pairs of models")
    trust.add_argument("--references", type=int, default=None, help="for each test; all there are unless given")
    trust.add_argument("--any-architecture", action="store_true", help="references of all, not only the suspect's")
    trust.add_argument("--pairs", type=int, default=100, help="probe pairs")
    trust.add_argument("--key", type=int, default=0)
    trust.add_argument("--format", default="text", choices=["text", "json"])
    trust.add_argument("--plot", type=Path, help="an SVG of observed against stated error rates")
    null = commands.add_parser("null", help="hold the default calibration against zoos, or write it from them")
    null.add_argument("folders", type=Path, nargs="+")
    null.add_argument("--owners", type=int, default=40, help="of each zoo, drawn at random")
    null.add_argument("--write", action="store_true", help="write modeldiff_jax/detection/default_calibration.json")
    hostile = commands.add_parser("adversary", help="what thieves who hide and accusers who lie can do")
    hostile.add_argument("folder", type=Path, help="a finished build")
    hostile.add_argument("--pairs", type=int, default=100)
    hostile.add_argument("--steps", type=int, default=300, help="of a thief's fine-tuning")
    hostile.add_argument("--keys", type=int, default=16, help="most that an accuser tries")
    hostile.add_argument("--plot", type=Path, help="SVG to write")
    hostile.add_argument("--format", default="text", choices=["text", "json"])
    less = commands.add_parser("access", help="what is left when a suspect tells less, and pairs are found by asking")
    less.add_argument("folder", type=Path)
    less.add_argument("--pairs", type=int, default=100)
    less.add_argument("--key", type=int, default=0)
    less.add_argument("--format", default="text", choices=["text", "json"])
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
        elif given.command == "reliability":
            from bench.modelreuse import reliability
            from bench.modelreuse.folder import Zoo
            from bench.modelreuse.study import Study

            study = Study(Zoo(given.folder), given.pairs, given.key)
            result = reliability.reliability(study, given.tests, given.references, given.any_architecture)
            if given.plot:
                given.plot.write_text(reliability.plot(result), "utf-8")
            print(json.dumps(result, indent=1) if given.format == "json" else reliability.table(result))
        elif given.command == "null":
            print(json.dumps(_null(given), indent=1))
        elif given.command == "adversary":
            from bench.modelreuse import adversary

            result = adversary.adversary(given.folder, given.pairs, given.steps, given.keys)
            if given.plot:
                given.plot.write_text(adversary.plot(result), "utf-8")
            print(json.dumps(result, indent=1) if given.format == "json" else adversary.table(result))
        elif given.command == "access":
            print(less_access(given))
        elif given.command == "lineage":
            print(kinship(given))
        else:
            result = evaluate(given)
            print(json.dumps(result, indent=1) if given.format == "json" else table(result))
    except ModelDiffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _null(given: argparse.Namespace) -> dict[str, Any]:
    from bench.modelreuse import default_calibration as default_null
    from bench.modelreuse.folder import Zoo
    from modeldiff_jax.detection.default_calibration import FILE

    found = [pair for folder in given.folders for pair in default_null.similarities(Zoo(folder), given.owners)]
    if given.write:
        content = default_null.pack(found, {"zoos": [folder.name for folder in given.folders], "owners": given.owners})
        FILE.write_text(json.dumps(content) + "\n", "utf-8")
    return default_null.held_against(found, json.loads(FILE.read_text("utf-8")))


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
    study = Study(Zoo(given.folder), given.pairs, given.key, access=given.access, black_box=given.black_box)
    fields = ("protocol", "method", "orientation", "pairs", "key", "access", "black_box")
    asked = {name: getattr(given, name) for name in fields}
    found = PROTOCOLS[given.protocol](study, METHODS[given.method], given.orientation)
    queries = list(study.queries.values())
    return {**asked, **found, "queries": sum(queries) / len(queries) if queries else None}


def less_access(given: argparse.Namespace) -> str:
    """Every access, as text."""
    from bench.modelreuse import access
    from bench.modelreuse.folder import Zoo
    from bench.modelreuse.reactions import Reactor
    from bench.modelreuse.study import Study

    zoo = Zoo(given.folder)
    reactor = Reactor({name: zoo.path(name) for name in zoo.entries})
    rows = access.less_access(lambda black_box: Study(zoo, given.pairs, given.key, reactor, black_box=black_box))
    return json.dumps(rows, indent=1) if given.format == "json" else access.table(rows)


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
    asked = f", {result['queries']:.0f} queries for the pairs of a model" if result.get("queries") else ""
    return "\n".join([lines[0], head, *lines[1:], f"{result['seconds']:.1f} s{asked}"])


if __name__ == "__main__":
    sys.exit(main())
