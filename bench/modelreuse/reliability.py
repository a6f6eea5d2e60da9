"""Measures whether p-values hold: how often unrelated and related models are called reused at each error rate.

For an owner and a suspect the references are models of the suspect's dataset, and of its architecture or of any, from
other roots than both. In a population of independent models they are drawn at random, and the rate must be alpha up to
sampling error. In a zoo the references are each other's children and siblings, as are the suspects, so that p-values
are not exactly valid there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.modelreuse.folder import Entry
from bench.modelreuse.methods.fused import reactions_to
from bench.modelreuse.study import Study
from bench.plot import Line, Panel, drawn
from modeldiff_jax.detection.conformal import references_needed
from modeldiff_jax.detection.decision import Decision, decide
from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.relatedness import ReactionTable, relatedness
from modeldiff_jax.report.plots.axes import Axis

ALPHAS = (0.001, 0.01, 0.05)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The decision on one pair.

    Attributes:
      owner, suspect: the pair.
      decision: the decision on it, with ranks and the modelled tail.
    """

    owner: Entry
    suspect: Entry
    decision: Decision

    @property
    def hard(self) -> bool:
        """Whether the suspect has the owner's architecture and dataset."""
        return self.owner.arch == self.suspect.arch and self.owner.dataset == self.suspect.dataset

    def p_value(self, tail: bool) -> float:
        """Returns the p-value that verdicts use, or the rank alone."""
        value = self.decision.decisive_p_value if tail else self.decision.p_value
        assert value is not None
        return value


def reliability(
    study: Study,
    n_pairs: int,
    n_references: int | None = None,
    any_architecture: bool = False,
    n_owners: int | None = None,
) -> dict[str, Any]:
    """Measures how often unrelated and related pairs are called reused.

    Args:
      study: the zoo, and how pairs are made: on the owner.
      n_pairs: unrelated pairs, drawn at random among owners and models of other roots, each with other references.
      n_references: number of references drawn at random for each pair; None for all.
      any_architecture: whether references may have another architecture than the suspect. Then rates hold over all
        pairs only: unrelated models of one architecture are more alike than of two.
      n_owners: number of owners drawn at random; None for all models but quantised ones.
    Returns:
      For each alpha the share called reused, by the p-value that verdicts use (`verdict`) and by the rank alone
      (`rank`): of unrelated pairs, of hard ones among them (the owner's architecture and dataset), and of each kind of
      child with its parent. `sampling_error` is the standard deviation of the mean over owners, whose pairs are
      dependent. `p_values` are those of the unrelated pairs.
    """
    rng = np.random.default_rng([study.key, 1])
    entries = [study.entry(name) for name in study.names]
    owners = [i for i, entry in enumerate(entries) if entry.kind != "quantize"]
    if n_owners is not None and n_owners < len(owners):
        owners = sorted(rng.choice(owners, n_owners, replace=False).tolist())
    unrelated: list[Outcome] = []
    children: list[Outcome] = []
    for owner in owners:
        table = reactions_to(study, entries[owner].name)
        others = [i for i, entry in enumerate(entries) if entry.root != entries[owner].root]
        drawn_suspects = rng.choice(others, -(-n_pairs // len(owners))).tolist() if others else []
        related = [i for i, entry in enumerate(entries) if entry.parent == entries[owner].name]
        for outcomes, suspects in ((unrelated, drawn_suspects), (children, related)):
            for suspect in suspects:
                references = _references(entries, owner, suspect, n_references, any_architecture, rng)
                if references:
                    decision = _decide(table, owner, suspect, references)
                    outcomes.append(Outcome(entries[owner], entries[suspect], decision))
        study.forget("reactions", entries[owner].name)
    if not unrelated:
        raise InvalidInputError(
            "P-values need references of the suspect's dataset, of roots other than both models'",
            got="too few for every pair",
            where=str(study.zoo.folder),
            fix=f"take {references_needed(max(ALPHAS))} or fewer references, from a zoo with as many roots",
        )
    hard = [outcome for outcome in unrelated if outcome.hard]
    kinds = dict.fromkeys(outcome.suspect.kind for outcome in children)
    return {
        "pairs": len(unrelated),
        "owners": len({outcome.owner.name for outcome in unrelated}),
        "hard_pairs": len(hard),
        "references": n_references,
        "unrelated": _rates(unrelated),
        "hard": _rates(hard) if hard else None,
        "kinds": {kind: _rates([o for o in children if o.suspect.kind == kind]) for kind in kinds},
        "p_values": np.sort([outcome.p_value(tail=True) for outcome in unrelated]).round(5).tolist(),
    }


def _references(
    entries: Sequence[Entry],
    owner: int,
    suspect: int,
    n_references: int | None,
    any_architecture: bool,
    rng: np.random.Generator,
) -> list[int]:
    """Draws references; returns none where there are fewer than `n_references`, or than the largest alpha needs."""
    roots = {entries[owner].root, entries[suspect].root}
    eligible = [
        i
        for i, entry in enumerate(entries)
        if entry.dataset == entries[suspect].dataset
        and entry.root not in roots
        and (any_architecture or entry.arch == entries[suspect].arch)
    ]
    count = n_references or len(eligible)
    if len(eligible) < max(count, references_needed(max(ALPHAS))):
        return []
    return [int(i) for i in rng.choice(eligible, count, replace=False)]


def _decide(table: ReactionTable, owner: int, suspect: int, references: Sequence[int]) -> Decision:
    """Decides as `modeldiff_jax.compare` does."""
    models = [owner, suspect, *references]
    unrelated = np.arange(len(models)) > 0
    scores = relatedness(table.subset(models), [0], range(1, len(models)), unrelated)["related"][0]
    return decide(float(scores[0]), scores[1:].tolist(), max(ALPHAS))


def _rates(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Returns the shares called reused at each alpha, with the deviation of the mean over owners."""
    owners = np.array([outcome.owner.name for outcome in outcomes])
    rates: dict[str, Any] = {"pairs": len(outcomes)}
    for alpha in ALPHAS:
        shares = {}
        for name, tail in (("verdict", True), ("rank", False)):
            reused = np.array([outcome.p_value(tail) <= alpha for outcome in outcomes])
            of_owner = [reused[owners == owner].mean() for owner in np.unique(owners)]
            shares[name] = float(reused.mean())
            if tail:
                shares["sampling_error"] = float(np.std(of_owner) / np.sqrt(len(of_owner)))
        rates[str(alpha)] = shares
    return rates


def table(result: dict[str, Any]) -> str:
    """Returns the result as text."""
    lines = [f"{result['pairs']} unrelated pairs of {result['owners']} owners, {result['references']} references each"]
    groups = {"all": result["unrelated"], "of one architecture and dataset": result["hard"], **result["kinds"]}
    for name, rates in groups.items():
        if rates:
            shares = ", ".join(
                f"{rates[str(alpha)]['verdict']:.4f} (+- {rates[str(alpha)]['sampling_error']:.4f}; by rank "
                f"{rates[str(alpha)]['rank']:.4f}) at {alpha}"
                for alpha in ALPHAS
            )
            lines.append(f"{name} ({rates['pairs']}) called reused: {shares}")
    return "\n".join(lines)


_POINTS = 500


def plot(result: dict[str, Any]) -> str:
    """Returns an SVG of the share of unrelated pairs called reused against the stated error rate."""
    p = result["p_values"]
    observed = [(value, (i + 1) / len(p)) for i, value in enumerate(p)]
    panels = [
        Panel(
            f"unrelated pairs called reused, alpha to {limit:g}",
            [
                Line("stated", "#888888", [(0.0, 0.0), (limit, limit)], dots=False),
                Line("observed", "#1b6ca8", _thinned([point for point in observed if max(point) <= limit]), dots=False),
            ],
            Axis.even(0, limit, limit / 5),
            Axis.even(0, limit, limit / 5),
        )
        for limit in (1.0, 0.1)
    ]
    return drawn("Error rates, observed and stated", panels)


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns as many evenly chosen points as a line can show."""
    return points[:: max(1, len(points) // _POINTS)]
