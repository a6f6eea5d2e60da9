"""Measures adversaries: thieves who hide their copies (`thief.py`) and accusers who forge claims (`forgery.py`)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.modelreuse.build import _load
from bench.modelreuse.data import make_task
from bench.modelreuse.folder import Zoo
from bench.modelreuse.forgery import ALPHA, METHODS, Trial, accusation_rates, claims, scores, scores_by_key
from bench.modelreuse.likeness import TERMS
from bench.modelreuse.study import Study
from bench.modelreuse.thief import Pairs, Theft, logits_of, steal
from bench.plot import Line, Panel, drawn
from modeldiff_jax.detection.conformal import conformal_p_value
from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.report.plots.axes import Axis

WEIGHTS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Weights of the repelling term, relative to the loss of the task."""
STEPS = 300
_KEYS = (1, 2, 4, 8, 16, 32)
_THIEF_SEED = 1000
"""Random seed of a thief's images, which no zoo has."""
KNOWLEDGE = ("own", "leaked")
"""Pairs that a thief repels on: `own` pairs, from other images and another key, or those of the verdict, `leaked`."""


def victims(zoo: Zoo) -> list[str]:
    """Returns a transfer with all layers tuned for each dataset, of architectures in turn."""
    names_by_dataset: dict[str, list[str]] = {}
    for entry in zoo.entries.values():
        if entry.kind == "transfer" and entry.name == f"{entry.root}transfer({entry.dataset},1.0)-":
            names_by_dataset.setdefault(entry.dataset, []).append(entry.name)
    if not names_by_dataset:
        where = str(zoo.folder / "manifest.json")
        raise InvalidInputError("Adversaries need transfers with all layers tuned", got="none", where=where)
    return [names[i % len(names)] for i, names in enumerate(names_by_dataset.values())]


def adversary(
    where: Path, n_pairs: int = 100, steps: int = STEPS, keys: int = 16, weights: Sequence[float] = WEIGHTS
) -> dict[str, Any]:
    """Runs all experiments on a finished build.

    Args:
      where: a folder that `build` made, with its variables.
      n_pairs: probe pairs of every claim.
      steps: steps of a thief's fine-tuning.
      keys: most keys that an accuser tries.
      weights: weights of a thief's repelling term.
    """
    start = time.perf_counter()
    study = Study(Zoo(where), n_pairs)
    chosen = victims(study.zoo)
    thieves = [row for victim in chosen for row in _thefts(study, victim, steps, weights)]
    trials = [Trial(study, victim) for victim in chosen]
    claimed = [row for trial in trials for row in claims(trial)]
    key_scores = [scores_by_key(trial, keys) for trial in trials]
    tried = []
    for k in [k for k in _KEYS if k <= keys]:
        for method in METHODS:
            rates = [
                accusation_rates(of_victim[method]["unrelated"][:k], of_victim[method]["relatives"][:k])
                for of_victim in key_scores
            ]
            for how in rates[0]:
                innocent, derived = np.mean([of_victim[how] for of_victim in rates], axis=0)
                tried.append({"method": method, "keys": k, "how": how, "innocent": innocent, "derived": derived})
    return {
        "victims": chosen,
        "pairs": n_pairs,
        "steps": steps,
        "scratch": {victim: _scratch(study, victim) for victim in chosen},
        "thieves": thieves,
        "claims": claimed,
        "keys": tried,
        "seconds": time.perf_counter() - start,
    }


def _thefts(study: Study, victim: str, steps: int, weights: Sequence[float]) -> list[dict[str, Any]]:
    """Returns a row for each copy: its repelling term, its accuracy and its scores."""
    trial, entry = Trial(study, victim), study.entry(victim)
    references, start = trial.unrelated, _load(study.zoo.folder, victim)
    images = make_task(entry.dataset, len(trial.pool), 1, _THIEF_SEED + study.key).train
    x = study.zoo.normalised(images.x.transpose(0, 3, 1, 2))
    probes = trial.probes()
    known_probes = {"own": trial.probes(x, key=1), "leaked": probes}
    pairs = {who: _pairs(trial.reactions(known, [victim, *references]), known) for who, known in known_probes.items()}
    plans = [(TERMS[0], KNOWLEDGE[0], 0.0)]
    plans += [(term, who, weight) for term in TERMS for who in KNOWLEDGE for weight in weights]
    copies = steal(
        [
            Theft(entry.arch, entry.classes, start, images.x, images.y, pairs[who], term, weight, steps, seed=0)
            for term, who, weight in plans
        ]
    )
    test, labels = study.images(entry.dataset, "test")
    reactions = trial.reactions(probes, [victim, *references])
    others = [reactions[name] for name in references]
    rows = []
    for (term, who, weight), copy in zip(plans, copies, strict=True):

        def logits(x: np.ndarray, copy: Any = copy) -> np.ndarray:
            return logits_of(entry.arch, entry.classes, copy, x.transpose(0, 2, 3, 1))

        accuracy = float(np.mean(logits(test).argmax(1) == labels))
        of_copy = np.stack([logits(probes.seeds), logits(probes.partners)])
        by_method = scores(reactions[victim], [of_copy, *others], range(1, 1 + len(others)))
        row = {"victim": victim, "term": term if weight else "none", "knows": who, "weight": weight}
        row |= {"accuracy": accuracy}
        for method, values in by_method.items():
            below = float(np.mean(values[1:] < values[0]))
            row[method] = {
                "score": float(values[0]),
                "above": below,
                "p": conformal_p_value(values[0], values[1:].tolist()),
            }
        rows.append(row)
    return rows


def _pairs(reactions: Mapping[str, np.ndarray], probes: Any) -> Pairs:
    victim, *unrelated = reactions.values()
    seeds, partners = (side.transpose(0, 2, 3, 1) for side in (probes.seeds, probes.partners))
    return Pairs(seeds, partners, victim, np.stack(unrelated))


def _scratch(study: Study, victim: str) -> float | None:
    """Returns the accuracy of the same network trained from scratch on as many images; None if the zoo has none."""
    entry = study.entry(victim)
    name = f"train({entry.arch},{entry.dataset})-"
    if name not in study.zoo.entries:
        return None
    test, labels = study.images(entry.dataset, "test")
    return float(np.mean(study.reactor.logits([name], test)[name].argmax(1) == labels))


def table(result: Mapping[str, Any]) -> str:
    """Returns the result as text."""
    parts = [part(result) for part in (_thieves, _escapes, _claims, _keys)]
    return "\n\n".join("\n".join(lines) for lines in parts) + f"\n{result['seconds']:.0f} s"


def _thieves(result: Mapping[str, Any]) -> Iterable[str]:
    head = "".join(f" {'p, ' + method:>12}" for method in METHODS)
    for victim in result["victims"]:
        scratch = result["scratch"][victim]
        yield f"{victim}, from scratch {scratch:.3f}" if scratch is not None else victim
        yield f"{'repels':9} {'on':7} {'weight':>6} {'accuracy':>8}{head}"
        for row in result["thieves"]:
            if row["victim"] == victim:
                ps = "".join(f" {row[method]['p']:12.3f}" for method in METHODS)
                yield f"{row['term']:9} {row['knows']:7} {row['weight']:6g} {row['accuracy']:8.3f}{ps}"


def _escapes(result: Mapping[str, Any]) -> Iterable[str]:
    yield "accuracy of the best copy that is not called reused"
    yield f"{'repels':9} {'on':7} " + " ".join(f"{method:>9}" for method in METHODS) + "  victim"
    for victim in result["victims"]:
        for term, who in _COLOURS:
            copies = [r for r in result["thieves"] if (r["victim"], r["term"], r["knows"]) == (victim, term, who)]
            best = (max((r["accuracy"] for r in copies if r[m]["p"] > ALPHA), default=None) for m in METHODS)
            cells = " ".join(f"{'none' if accuracy is None else format(accuracy, '.3f'):>9}" for accuracy in best)
            yield f"{term:9} {who:7} {cells}  {victim}"


def _claims(result: Mapping[str, Any]) -> Iterable[str]:
    yield f"{'claims against innocent models':32} {'method':10} {f'p <= {ALPHA}':>9} {'accepted':>9}"
    for how in dict.fromkeys(row["how"] for row in result["claims"]):
        for method in METHODS:
            rows = [row for row in result["claims"] if (row["how"], row["method"]) == (how, method)]
            significant, accepted = sum(row["p"] <= ALPHA for row in rows), sum(row["accepted"] for row in rows)
            yield f"{how:32} {method:10} {f'{significant}/{len(rows)}':>9} {f'{accepted}/{len(rows)}':>9}"


def _keys(result: Mapping[str, Any]) -> Iterable[str]:
    hows = list(dict.fromkeys(row["how"] for row in result["keys"]))
    yield "called reused: innocent | derived models, by number of keys and use of their scores"
    yield f"{'method':10} {'keys':>4} " + " ".join(f"{how:>13}" for how in hows)
    shares = {(row["method"], row["keys"], row["how"]): row for row in result["keys"]}
    for method, k in dict.fromkeys((row["method"], row["keys"]) for row in result["keys"]):
        cells = (shares[method, k, how] for how in hows)
        yield f"{method:10} {k:4} " + " ".join(f"{c['innocent']:5.3f} | {c['derived']:5.3f}" for c in cells)


_COLOURS = {("ddv", "own"): "#1b6ca8", ("ddv", "leaked"): "#7fb2d9"}
_COLOURS |= {("evidence", "own"): "#d1495b", ("evidence", "leaked"): "#eda3ad"}


def plot(result: Mapping[str, Any]) -> str:
    """Returns an SVG: by method, the share of unrelated models that copies score above, against the copies' accuracy.

    Values are means over victims; a curve runs over the weights of the term.
    """
    curves = {(m, *which): _curve(result, m, *which) for m in METHODS for which in _COLOURS}
    reached = [accuracy for points in curves.values() for accuracy, _ in points]
    x = Axis.even(math.floor(10 * min(reached)) / 10, math.ceil(10 * max(reached)) / 10, 0.1)
    y, panels = Axis.even(0.0, 1.0, 0.25), []
    for method in METHODS:
        lines = [Line(f"{t}, {who} pairs", colour, curves[method, t, who]) for (t, who), colour in _COLOURS.items()]
        ends = [(x.low, 1 - ALPHA), (x.high, 1 - ALPHA)]
        lines.append(Line(f"called reused at {ALPHA:g}", "#888888", ends, dots=False))
        panels.append(Panel(f"{method}: unrelated models below, by accuracy", lines, x, y, (165, 145)))
    return drawn("Copies that hide", panels)


def _curve(result: Mapping[str, Any], method: str, term: str, who: str) -> list[tuple[float, float]]:
    points: dict[float, list[tuple[float, float]]] = {}
    for row in result["thieves"]:
        if row["weight"] == 0 or (row["term"], row["knows"]) == (term, who):
            points.setdefault(row["weight"], []).append((row["accuracy"], row[method]["above"]))
    return [(float(a), float(b)) for a, b in (np.mean(points[weight], axis=0) for weight in sorted(points))]
