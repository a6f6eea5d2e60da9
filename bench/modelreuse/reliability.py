"""Measures whether p-values hold: how often unrelated and related models are called reused at each error rate.

For an owner and a suspect the references are models of the suspect's dataset, and of its architecture or of any, from
other roots than both. In a population of independent models they are drawn at random, and the rate must be alpha up to
sampling error. In a zoo the references are each other's children and siblings, as are the suspects, so that p-values
are not exactly valid there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.modelreuse.folder import Entry
from bench.modelreuse.methods.fused import reactions_to
from bench.modelreuse.study import Study
from bench.plot import Line, Panel, drawn
from modeldiff_jax.detection.conformal import conformal_p_value, references_needed
from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.relatedness import relatedness
from modeldiff_jax.report.plots.axes import Axis

ALPHAS = (0.01, 0.05)


def reliability(
    study: Study, n_pairs: int, n_references: int | None = None, any_architecture: bool = False
) -> dict[str, Any]:
    """P-values of unrelated and of related pairs.

    Args:
      study: the zoo, and how pairs are made: on the owner.
      n_pairs: unrelated pairs, drawn at random among all owners and all models of other roots.
      n_references: drawn at random for each pair; None for all there are.
      any_architecture: references need not be of the suspect's architecture. Then rates hold over all pairs only:
        unrelated models of one architecture are more alike than of two.
    Returns:
      For each alpha the share called reused: of unrelated pairs (`false_positive_rate`, with the standard deviation
      `sampling_error` that a rate of exactly alpha would have), of hard negatives among them (architecture and dataset
      as the owner's), and of each kind of child with its parent. `p_values` of the unrelated pairs.
    """
    rng = np.random.default_rng([study.key, 1])
    entries = [study.entry(name) for name in study.names]
    owners = [entry for entry in entries if entry.kind != "quantize"]
    unrelated: list[tuple[Entry, Entry, float]] = []

    def p_value(owner: Entry, suspect: Entry) -> float:
        return _p_value(study, owner, suspect, n_references, any_architecture, rng)

    children: list[tuple[Entry, float]] = []
    per_owner = -(-n_pairs // len(owners))
    for owner in owners:
        strangers = [entry for entry in entries if entry.root != owner.root]
        drawn = [strangers[i] for i in rng.choice(len(strangers), min(per_owner, len(strangers)), replace=False)]
        for suspect in drawn:
            unrelated.append((owner, suspect, p_value(owner, suspect)))
        for child in (entry for entry in entries if entry.parent == owner.name):
            children.append((child, p_value(owner, child)))
        study.forget("reactions", owner.name)
    kept = [(owner, suspect, p) for owner, suspect, p in unrelated if np.isfinite(p)]
    if not kept:
        raise InvalidInputError(
            "P-values need references of the suspect's dataset, of roots other than both models'",
            got="too few for every pair",
            where=str(study.zoo.folder),
            fix=f"ask for {references_needed(max(ALPHAS))} or fewer, of a folder that has as many roots",
        )
    p = np.array([value for _, _, value in kept])
    hard = np.array([owner.arch == s.arch and owner.dataset == s.dataset for owner, s, _ in kept])
    found: dict[str, Any] = {"pairs": len(kept), "hard_pairs": int(hard.sum()), "rates": {}, "kinds": {}}
    for alpha in ALPHAS:
        found["rates"][str(alpha)] = {
            "false_positive_rate": float(np.mean(p <= alpha)),
            "hard_false_positive_rate": float(np.mean(p[hard] <= alpha)) if hard.any() else None,
            "sampling_error": float(np.sqrt(alpha * (1 - alpha) / len(p))),
        }
    for kind in dict.fromkeys(child.kind for child, _ in children):
        mine = np.array([value for child, value in children if child.kind == kind and np.isfinite(value)])
        if mine.size:
            rates = {str(alpha): float(np.mean(mine <= alpha)) for alpha in ALPHAS}
            found["kinds"][kind] = {"pairs": len(mine), "called_reused": rates}
    return {**found, "p_values": np.sort(p).round(5).tolist()}


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = [f"{result['pairs']} unrelated pairs, {result['hard_pairs']} of them of one architecture and dataset"]
    for alpha, rates in result["rates"].items():
        hard = rates["hard_false_positive_rate"]
        lines.append(
            f"alpha {alpha}: {rates['false_positive_rate']:.4f} called reused (sampling error "
            f"{rates['sampling_error']:.4f}); of the hard ones {'-' if hard is None else f'{hard:.4f}'}"
        )
    for kind, of_kind in result["kinds"].items():
        shares = ", ".join(f"{share:.2f} at {alpha}" for alpha, share in of_kind["called_reused"].items())
        lines.append(f"{kind}: {of_kind['pairs']} children called reused: {shares}")
    return "\n".join(lines)


def plot(result: dict[str, Any]) -> str:
    """Share of unrelated pairs called reused against the stated error rate, as an SVG."""
    p = result["p_values"]
    observed = [(value, (i + 1) / len(p)) for i, value in enumerate(p)]
    panels = [
        Panel(
            f"unrelated pairs called reused, alpha to {limit:g}",
            [
                Line("stated", "#888888", [(0.0, 0.0), (limit, limit)], dots=False),
                Line("observed", "#1b6ca8", [point for point in observed if max(point) <= limit], dots=False),
            ],
            Axis.even(0, limit, limit / 5),
            Axis.even(0, limit, limit / 5),
        )
        for limit in (1.0, 0.1)
    ]
    return drawn("Error rates, observed and stated", panels)


def _p_value(
    study: Study,
    owner: Entry,
    suspect: Entry,
    n_references: int | None,
    any_architecture: bool,
    rng: np.random.Generator,
) -> float:
    """As `modeldiff_jax.compare` finds it; NaN where there are fewer references than the larger alpha needs."""
    entries = [study.entry(name) for name in study.names]
    away = {owner.root, suspect.root}
    fit = [
        i
        for i, e in enumerate(entries)
        if e.dataset == suspect.dataset and e.root not in away and (any_architecture or e.arch == suspect.arch)
    ]
    count = n_references or len(fit)
    if len(fit) < max(count, references_needed(max(ALPHAS))):
        return np.nan
    chosen = rng.choice(fit, count, replace=False)
    number = {name: i for i, name in enumerate(study.names)}
    strangers = np.zeros(len(entries), bool)
    strangers[[*chosen, number[suspect.name]]] = True
    others = [number[suspect.name], *chosen.tolist()]
    scores = relatedness(reactions_to(study, owner.name), [number[owner.name]], others, strangers)["related"][0]
    return conformal_p_value(float(scores[0]), scores[1:].tolist())
