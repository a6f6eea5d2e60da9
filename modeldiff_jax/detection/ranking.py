"""Rankings of a suspect among references: its score, their scores, and the decision that follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modeldiff_jax.detection.decision import Decision, decide
from modeldiff_jax.detection.default_calibration import UnrelatedPairs, unrelated_pairs
from modeldiff_jax.detection.identity import Identity, identity
from modeldiff_jax.detection.measurement import Measurement
from modeldiff_jax.evidence.access import ALL
from modeldiff_jax.evidence.decision_distance import ddv_similarity
from modeldiff_jax.evidence.reference_scores import FEWEST, ReferenceScores, score_against_references
from modeldiff_jax.evidence.representations import REPRESENTATIONS
from modeldiff_jax.models.model import Origin
from modeldiff_jax.probes.probe_set import ProbeSet


@dataclass(frozen=True, slots=True)
class Reference:
    """A model known to be unrelated to the target, and its similarity with it.

    Attributes:
      origin: file or object.
      similarity: cosine of its DDV and the target's, in [-1, 1].
      related: the score that the p-value ranks: see `Ranking.score`.
      counted: whether it is ranked. A reference is ranked only if it shares a label space with the target exactly when
        the suspect does: then the same representations compare both with the target.
    """

    origin: Origin
    similarity: float
    related: float
    counted: bool


@dataclass(frozen=True)
class Ranking:
    """The rank of a suspect among references.

    Attributes:
      similarity: cosine of the two DDVs, in [-1, 1].
      score: the score that the p-value ranks. With 8 or more references the evidence `related`, which fuses several
        representations of the reactions; else the similarity.
      references: references measured under the same probe set.
      scores: scores of suspect and references by each representation; None where there are too few references.
      identity: the respect in which suspect and target are identical; None where they differ.
      decision: verdict, p-values, reason.
      unrelated_pairs: without references, stored similarities of unrelated models like these two, where there are any.
      alpha: error rate of the verdict.
      notes: remarks for a careful reader, such as which references were left out.
    """

    similarity: float
    score: float
    references: tuple[Reference, ...]
    scores: ReferenceScores | None
    identity: Identity | None
    decision: Decision
    unrelated_pairs: UnrelatedPairs | None
    alpha: float
    notes: tuple[str, ...] = field(default=())

    @property
    def calibration(self) -> str:
        """Source of the p-value: `references`, or `none`."""
        return "references" if self.references else "none"

    @property
    def null_scores(self) -> dict[str, list[float]]:
        """Scores of the ranked references, by name of the score.

        There is `similarity` and, with enough references, each representation and `related`. A score that some of the
        references lack is left out.
        """
        counted = np.array([reference.counted for reference in self.references], bool)
        if not counted.any():
            return {}
        similarities = np.array([reference.similarity for reference in self.references])
        by_name = {"similarity": similarities, **(self.scores.references if self.scores else {})}
        return {name: row[counted].tolist() for name, row in by_name.items() if np.isfinite(row[counted]).all()}

    @property
    def representations(self) -> list[dict[str, Any]]:
        """The verdict that each representation supports; empty where there are too few references.

        Each entry has `name`, `score`, `exceeded_by` (counted references that score at least as high), and `supports`:
        `reuse` (no more than `alpha` of them do), `unrelated` (half or more do), or `neither`.
        """
        counted = np.array([reference.counted for reference in self.references], bool)
        if self.scores is None or not counted.any():
            return []
        entries = []
        for name in (name for name in REPRESENTATIONS if name in self.scores.suspect):
            score, null = self.scores.suspect[name], self.scores.references[name][counted]
            share = float(np.mean(null >= score))
            supports = "reuse" if share <= self.alpha else "unrelated" if share >= 0.5 else "neither"
            entries.append(
                {"name": name, "score": score, "exceeded_by": int(np.sum(null >= score)), "supports": supports}
            )
        return entries

    def to_dict(self) -> dict[str, Any]:
        """Returns scores, p-value, verdict and reason as JSON-able data."""
        decision = self.decision
        return {
            "score": self.score,
            "representations": self.representations,
            "null_scores": self.null_scores,
            "identity": self.identity,
            "p_value": decision.p_value,
            "tail": None if decision.tail is None else decision.tail.to_dict(),
            "calibration": self.calibration,
            "verdict": decision.verdict,
            "basis": decision.basis,
            "references_needed": decision.references_needed,
            "reason": decision.reason,
            "unrelated_pairs": None if self.unrelated_pairs is None else self.unrelated_pairs.to_dict(),
        }


def rank(
    target: Measurement,
    suspect: Measurement,
    references: Sequence[Measurement],
    probes: ProbeSet,
    alpha: float,
    access: str = ALL,
) -> Ranking:
    """Ranks a suspect among references and decides.

    Args:
      target, suspect: measured under `probes`.
      references: measured likewise; copies of the target or the suspect are left out.
      probes: made without the suspect.
      alpha: error rate of the verdict.
      access: access level that all outputs were restricted to.
    """
    similarity = float(ddv_similarity(target.ddv, suspect.ddv))
    same = identity(target, suspect)
    kept, notes = _without_copies(references, target, suspect)
    if access == ALL != suspect.inferred_access and any(m.inferred_access == ALL for m in (target, *kept)):
        notes.append(
            f"The suspect's outputs are consistent with {suspect.inferred_access} alone. If it exposes no more, say so "
            "(`access`): then target and references are restricted likewise, without which the p-value need not hold."
        )
    cosines = [float(ddv_similarity(target.ddv, reference.ddv)) for reference in kept]
    same_label_space = target.reactions.n_outputs == suspect.reactions.n_outputs
    scores = (
        score_against_references(target.reactions, suspect.reactions, [reference.reactions for reference in kept])
        if len(kept) >= FEWEST
        else None
    )
    related = scores.references["related"].tolist() if scores else cosines
    counted = [(r.reactions.n_outputs == target.reactions.n_outputs) == same_label_space for r in kept]
    if not all(counted):
        notes.append(_not_ranked(counted, same_label_space))
    score = scores.suspect["related"] if scores else similarity
    stored = None
    if not kept and access == ALL:
        stored = unrelated_pairs(similarity, target.model, suspect.model, probes, same_label_space)
    return Ranking(
        similarity=similarity,
        score=score,
        references=tuple(
            Reference(reference.origin, cosine, value, counts)
            for reference, cosine, value, counts in zip(kept, cosines, related, counted, strict=True)
        ),
        scores=scores,
        identity=same,
        decision=decide(score, [v for v, counts in zip(related, counted, strict=True) if counts], alpha, same),
        unrelated_pairs=stored,
        alpha=alpha,
        notes=tuple(notes),
    )


def _not_ranked(counted: Sequence[bool], same_label_space: bool) -> str:
    """Returns a note on why some references are not ranked."""
    suspect_has, they_have = (
        ("as many outputs as", "another number") if same_label_space else ("not as many outputs as", "as many")
    )
    return (
        f"{counted.count(False)} of {len(counted)} references are not ranked: the suspect has {suspect_has} the "
        f"target, they have {they_have}{'' if same_label_space else ' as the target'}."
    )


def _without_copies(
    references: Sequence[Measurement], target: Measurement, suspect: Measurement
) -> tuple[list[Measurement], list[str]]:
    """Returns the references that are no copies of target or suspect, and notes on those that are."""
    kept, notes = [], []
    for reference in references:
        if any(identity(side, reference) in ("file", "weights") for side in (target, suspect)):
            path = reference.origin.path
            notes.append(f"Reference {path} is a copy of the target or the suspect and was left out.")
        else:
            kept.append(reference)
    return kept, notes
