"""Rules that evaluate a method's scores: the paper's strict one, its 144 pairs, and error rates."""

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
    """Returns the 84 models derived from a pre-trained root by the paper's kinds.

    Models in half precision, and students of the victim's architecture, are left out.
    """
    entries = []
    for entry in zoo.entries.values():
        if entry.parent is None or entry.kind not in PAPER_KINDS or zoo.entries[entry.root].kind != "pretrain":
            continue
        if entry.half or (entry.kind == "steal" and entry.arch == zoo.entries[entry.parent].arch):
            continue
        entries.append(entry)
    return entries


def strict(study: Study, method: Method, orientation: Orientation) -> dict[str, Any]:
    """Counts a target as right if its parent scores higher than every model of another root (the notebook's rule)."""
    return _evaluate(study, method, orientation, _strict_rule)


def pairs144(study: Study, method: Method, orientation: Orientation) -> dict[str, Any]:
    """Counts as the paper does, as far as it can be reconstructed.

    Each target but transfers counts twice, with its parent and with its root; the score must be above those of five
    models of other roots, drawn at random.
    """
    return _evaluate(study, method, orientation, _pairs_rule)


def roc(study: Study, method: Method, orientation: Orientation) -> dict[str, Any]:
    """Measures the error rates only: positives are children with their parents, negatives models of other roots."""
    return _evaluate(study, method, orientation, lambda *_: (0, 0))


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


def _evaluate(study: Study, method: Method, orientation: Orientation, rule: Rule) -> dict[str, Any]:
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
        of_kind = [entry for entry in suspects if entry.kind == kind]
        counts = [rule(study, entry, score, rng) if kind in PAPER_KINDS else (0, 0) for entry in of_kind]
        right, total = (sum(part) for part in zip(*counts, strict=True))
        kinds[kind] = {"strict_correct": right, "strict_total": total, **_rates(*_scored(zoo, of_kind, score))}
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
    """Returns the scores of children with their parents, and of those parents with all models of other roots."""
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
    below, up_to = np.searchsorted(n, p, "left"), np.searchsorted(n, p, "right")
    rates = {"auc": float(np.mean((below + up_to) / 2) / len(n))}
    for name, rate in (("tpr_at_5_fpr", 0.05), ("tpr_at_1_fpr", 0.01)):
        threshold = n[-max(1, int(np.floor(rate * len(n)))) - 1] if int(rate * len(n)) else n[-1]
        rates[name] = float(np.mean(p > threshold))
    return rates


PROTOCOLS = {"strict": strict, "pairs144": pairs144, "roc": roc}


def evaluate(study: Study, method: str, protocol: str, orientation: Orientation) -> dict[str, Any]:
    """Returns the result of one method under one protocol, with the settings."""
    result = PROTOCOLS[protocol](study, METHODS[method], orientation)
    queries = list(study.queries.values())
    return {
        "protocol": protocol,
        "method": method,
        "orientation": orientation,
        "pairs": study.n_pairs,
        "key": study.key,
        "access": study.access,
        "black_box": study.black_box,
        **result,
        "queries": sum(queries) / len(queries) if queries else None,
    }


def table(result: dict[str, Any]) -> str:
    """Returns the result of `evaluate` as text, a line for each kind of relative."""
    lines = [
        f"{result['method']}, {result['protocol']}, inputs of the {result['orientation']}, {result['pairs']} pairs",
        f"{'kind':18} {'correct':>9} {'AUC':>7} {'TPR@5%':>7} {'TPR@1%':>7}",
    ]
    for kind, row in {**result["kinds"], "all": result}.items():
        count = f"{row['strict_correct']}/{row['strict_total']}" if row["strict_total"] else ""
        numbers = (row[name] for name in ("auc", "tpr_at_5_fpr", "tpr_at_1_fpr"))
        lines.append(f"{kind:18} {count:>9} " + " ".join(f"{v:7.3f}" if v is not None else " " * 7 for v in numbers))
    queries = f", {result['queries']:.0f} queries for the pairs of a model" if result.get("queries") else ""
    return "\n".join([*lines, f"{result['seconds']:.1f} s{queries}"])
