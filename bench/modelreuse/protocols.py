"""Rules by which a method's scores are judged: the paper's strict one, its 144 pairs, and error rates."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.modelreuse.folder import Entry, Zoo
from bench.modelreuse.methods import METHODS, Method
from bench.modelreuse.study import Orientation, Study

PAPER_KINDS = ("transfer", "quantize", "prune", "distill", "steal")


def targets(zoo: Zoo) -> list[Entry]:
    """The 84: what derives from a pre-trained root by the paper's kinds, but not in half precision, and not stolen into
    the victim's own architecture."""
    found = []
    for entry in zoo.entries.values():
        if entry.parent is None or entry.kind not in PAPER_KINDS or zoo.entries[entry.root].kind != "pretrain":
            continue
        if entry.half or (entry.kind == "steal" and entry.arch == zoo.entries[entry.parent].arch):
            continue
        found.append(entry)
    return found


def strict(study: Study, method: Method, orientation: Orientation) -> dict[str, Any]:
    """A target is right if its parent scores higher than every model of another root (the notebook's rule)."""
    return _judge(study, method, orientation, _strict_rule)


def pairs144(study: Study, method: Method, orientation: Orientation) -> dict[str, Any]:
    """The published count as best reconstructed: each target but transfers twice, against parent and against root; the
    score must be above those of five models of other roots, drawn at random."""
    return _judge(study, method, orientation, _pairs_rule)


def roc(study: Study, method: Method, orientation: Orientation) -> dict[str, Any]:
    """Only the error rates: victims are models with derivatives; positives their derivatives at any depth of which
    every kind counts; negatives the models of other roots (as in QuRD)."""
    return _judge(study, method, orientation, lambda *_: (0, 0))


Rule = Callable[[Study, Entry, dict[tuple[str, str], float], np.random.Generator], tuple[int, int]]


def _strict_rule(
    study: Study, target: Entry, score: dict[tuple[str, str], float], rng: np.random.Generator
) -> tuple[int, int]:
    del rng
    others = [score[other.name, target.name] for other in _unrelated(study.zoo, target)]
    assert target.parent is not None
    return int(score[target.parent, target.name] > max(others)), 1


def _pairs_rule(
    study: Study, target: Entry, score: dict[tuple[str, str], float], rng: np.random.Generator
) -> tuple[int, int]:
    if target.kind == "transfer":
        return 0, 0
    assert target.parent is not None
    unrelated = _unrelated(study.zoo, target)
    right = 0
    for ancestor in (target.parent, target.root):
        five = rng.choice(len(unrelated), min(5, len(unrelated)), replace=False)
        right += score[ancestor, target.name] > max(score[unrelated[i].name, target.name] for i in five)
    return int(right), 2


def _unrelated(zoo: Zoo, target: Entry) -> list[Entry]:
    return [entry for entry in zoo.entries.values() if entry.root != target.root]


def _judge(study: Study, method: Method, orientation: Orientation, rule: Rule) -> dict[str, Any]:
    start = time.perf_counter()
    zoo = study.zoo
    chosen = targets(zoo)
    others = [
        e
        for e in zoo.entries.values()
        if e.kind not in PAPER_KINDS and e.parent is not None and e.kind != "independent"
    ]
    suspects = [*chosen, *others]
    owners = study.names
    table = method(study, owners, study.names, orientation)
    score = {(o, s): float(table[i, j]) for i, o in enumerate(owners) for j, s in enumerate(study.names)}
    seconds = time.perf_counter() - start
    rng = np.random.default_rng(study.key)
    kinds: dict[str, dict[str, Any]] = {}
    for kind in dict.fromkeys(entry.kind for entry in suspects):
        mine = [entry for entry in suspects if entry.kind == kind]
        counts = [rule(study, entry, score, rng) if kind in PAPER_KINDS else (0, 0) for entry in mine]
        right, total = (sum(part) for part in zip(*counts, strict=True))
        kinds[kind] = {"strict_correct": right, "strict_total": total, **_rates(*_scored(zoo, mine, score))}
    paper = [entry for entry in suspects if entry.kind in PAPER_KINDS]
    return {
        "strict_correct": sum(kinds[k]["strict_correct"] for k in kinds),
        "strict_total": sum(kinds[k]["strict_total"] for k in kinds),
        **_rates(*_scored(zoo, paper, score)),
        "seconds": seconds,
        "kinds": kinds,
    }


def _scored(
    zoo: Zoo, suspects: Sequence[Entry], score: dict[tuple[str, str], float]
) -> tuple[list[float], list[float]]:
    """Scores of children with their parents, and of those parents with all models of other roots."""
    positives, negatives = [], []
    for suspect in suspects:
        assert suspect.parent is not None
        positives.append(score[suspect.parent, suspect.name])
    for victim in dict.fromkeys(suspect.parent for suspect in suspects):
        assert victim is not None
        root = zoo.entries[victim].root
        negatives += [score[victim, other.name] for other in zoo.entries.values() if other.root != root]
    return positives, negatives


def _rates(positives: list[float], negatives: list[float]) -> dict[str, float | None]:
    if not positives or not negatives:
        return {"auc": None, "tpr_at_5_fpr": None, "tpr_at_1_fpr": None}
    p, n = np.array(positives), np.sort(np.array(negatives))
    below, upto = np.searchsorted(n, p, "left"), np.searchsorted(n, p, "right")
    found = {"auc": float(np.mean((below + upto) / 2) / len(n))}
    for name, rate in (("tpr_at_5_fpr", 0.05), ("tpr_at_1_fpr", 0.01)):
        cut = n[-max(1, int(np.floor(rate * len(n)))) - 1] if int(rate * len(n)) else n[-1]
        found[name] = float(np.mean(p > cut))
    return found


PROTOCOLS = {"strict": strict, "pairs144": pairs144, "roc": roc}


def evaluate(study: Study, method: str, protocol: str, orientation: Orientation) -> dict[str, Any]:
    """The outcome of one method under one protocol, with what was asked for."""
    found = PROTOCOLS[protocol](study, METHODS[method], orientation)
    queries = list(study.queries.values())
    return {
        "protocol": protocol,
        "method": method,
        "orientation": orientation,
        "pairs": study.n_pairs,
        "key": study.key,
        "access": study.access,
        "black_box": study.black_box,
        **found,
        "queries": sum(queries) / len(queries) if queries else None,
    }


def table(result: dict[str, Any]) -> str:
    """The outcome of `evaluate` as text, a line for each kind of relative."""
    lines = [
        f"{result['method']}, {result['protocol']}, inputs of the {result['orientation']}, {result['pairs']} pairs",
        f"{'kind':18} {'correct':>9} {'AUC':>7} {'TPR@5%':>7} {'TPR@1%':>7}",
    ]
    for kind, row in {**result["kinds"], "all": result}.items():
        count = f"{row['strict_correct']}/{row['strict_total']}" if row["strict_total"] else ""
        numbers = (row[name] for name in ("auc", "tpr_at_5_fpr", "tpr_at_1_fpr"))
        lines.append(f"{kind:18} {count:>9} " + " ".join(f"{v:7.3f}" if v is not None else " " * 7 for v in numbers))
    asked = f", {result['queries']:.0f} queries for the pairs of a model" if result.get("queries") else ""
    return "\n".join([*lines, f"{result['seconds']:.1f} s{asked}"])
