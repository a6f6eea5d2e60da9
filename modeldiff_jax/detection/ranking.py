"""A suspect's score, and what the same score is of unrelated models: of references, or by the default calibration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modeldiff_jax.detection import conformal as calibrate
from modeldiff_jax.detection.default_calibration import default_null
from modeldiff_jax.evidence.access import ALL, looks_like, told
from modeldiff_jax.evidence.decision_distance import DDV, ddv_similarity, react_to_pairs
from modeldiff_jax.evidence.reference_scores import FEWEST, Answers, Standing, stand
from modeldiff_jax.evidence.representations import VIEWS
from modeldiff_jax.kernels import paired_distances
from modeldiff_jax.models.model import Model
from modeldiff_jax.probes.adapt import Adapter
from modeldiff_jax.probes.probe_set import ProbeSet


@dataclass(frozen=True, slots=True)
class Reference:
    """A model known to be unrelated, and how similar to the target it is.

    Attributes:
      similarity: cosine of its DDV and the target's, in [-1, 1].
      related: the score that the p-value ranks: see `Ranking.score`.
      counted: whether it is ranked. Only a reference is that shares a label space with the target exactly if the
        suspect does: the same views compare those.
    """

    model: Model
    similarity: float
    related: float
    counted: bool


@dataclass(frozen=True)
class Measured:
    """A model under a probe set: its decision distances, and its reactions.

    Attributes:
      looks_like: the least access that its reactions would be all of (`modeldiff_jax.evidence.access`).
    """

    model: Model
    ddv: DDV
    answers: Answers
    looks_like: str


def measured(adapter: Adapter, probes: ProbeSet, access: str = ALL, n_labels: int | None = None) -> Measured:
    """An adapted model, run on probes and seen through an access (`modeldiff_jax.evidence.access`)."""
    vector, seeds, partners = react_to_pairs(adapter, probes)
    kind = looks_like(seeds)
    if access != ALL:
        seeds, partners = (np.asarray(told(x, access, n_labels), np.float32) for x in (seeds, partners))
        vector = DDV(paired_distances(seeds, partners, metric="cosine"), probes.probe_set_id)
    return Measured(adapter.model, vector, Answers.of(seeds, partners), kind)


@dataclass(frozen=True)
class Ranking:
    """Where a suspect stands among unrelated models.

    Attributes:
      similarity: cosine of the two DDVs, in [-1, 1].
      score: what the p-value ranks. With 8 references and more the evidence `related`, which fuses several views of the
        reactions; else the similarity.
      references: measured under the same probe set.
      standing: the suspect's scores by all views, and the references'; None where there are too few references.
      calibration: where the p-value comes from: `references`, the name of the default calibration, or `none`.
      judgement: verdict, p-value, reason.
      alpha: the error rate of the verdict.
      least_p_value: what the p-value would be, were no unrelated model as close.
      notes: what was left out, and what a default calibration is worth.
    """

    similarity: float
    score: float
    references: tuple[Reference, ...]
    standing: Standing | None
    calibration: str
    judgement: calibrate.Judgement
    alpha: float
    least_p_value: float
    notes: tuple[str, ...] = field(default=())

    @property
    def views(self) -> list[dict[str, Any]]:
        """What spoke for reuse and what against, view by view; empty where there are too few references.

        Each has `name`, `score`, `as_high` (counted references at least as high), and `says`: `for` (no more than
        `alpha` of them are), `against` (half or more are), `neither`.
        """
        counted = np.array([reference.counted for reference in self.references], bool)
        if self.standing is None or not counted.any():
            return []
        found = []
        for name in (name for name in VIEWS if name in self.standing.scores):
            score, null = self.standing.scores[name], self.standing.references[name][counted]
            share = float(np.mean(null >= score))
            says = "for" if share <= self.alpha else "against" if share >= 0.5 else "neither"
            found.append({"name": name, "score": score, "as_high": int(np.sum(null >= score)), "says": says})
        return found


def rank(
    target: Measured,
    suspect: Measured,
    references: Iterable[Measured],
    probes: ProbeSet,
    alpha: float,
    access: str = ALL,
) -> Ranking:
    """Ranks a suspect among references, or without any by the default calibration where that fits.

    Args:
      target, suspect: measured under `probes`.
      references: of models known to be unrelated, likewise; copies of the pair are left out.
      probes: made without the suspect.
      alpha: of the verdict.
      access: that all were seen through. The default calibration knows none but whole answers.
    """
    similarity = float(ddv_similarity(target.ddv, suspect.ddv))
    others, notes = _no_copies(references, target, suspect)
    if access == ALL != suspect.looks_like and any(model.looks_like == ALL for model in (target, *others)):
        notes.append(
            f"The suspect's answers look like no more than {suspect.looks_like}. If they are, say so (`access`): then "
            "target and references are seen through the same access, without which the p-value need not hold."
        )
    near = [float(ddv_similarity(target.ddv, other.ddv)) for other in others]
    shares = target.answers.n_outputs == suspect.answers.n_outputs
    default = None if others or access != ALL else default_null(target.model, suspect.model, probes, shares)
    if default:
        kind = f"pairs of the default calibration {default.name}"
        notes.append(
            "Default calibration: the p-value is a rank among unrelated pairs of other, small image classifiers, as "
            "good as they are like these two. References of the suspect's kind give one that holds."
        )
        judgement = calibrate.judge(similarity, default.similarities, alpha, kind)
        least = 1 / (len(default.similarities) + 1)
        return Ranking(similarity, similarity, (), None, default.name, judgement, alpha, least, tuple(notes))
    standing = stand(target.answers, suspect.answers, [o.answers for o in others]) if len(others) >= FEWEST else None
    scores = standing.references["related"].tolist() if standing else near
    alike = [(other.answers.n_outputs == target.answers.n_outputs) == shares for other in others]
    if not all(alike):
        notes.append(
            f"{alike.count(False)} of {len(alike)} references are not ranked: the suspect has "
            f"{'' if shares else 'not '}as many outputs as the target, and they have {'not' if shares else ''}."
        )
    score = standing.scores["related"] if standing else similarity
    return Ranking(
        similarity,
        score,
        tuple(
            Reference(other.model, cosine, value, same)
            for other, cosine, value, same in zip(others, near, scores, alike, strict=True)
        ),
        standing,
        "references" if others else "none",
        calibrate.judge(score, [value for value, same in zip(scores, alike, strict=True) if same], alpha),
        alpha,
        1 / (alike.count(True) + 1),
        tuple(notes),
    )


def _no_copies(references: Iterable[Measured], target: Measured, suspect: Measured) -> tuple[list[Measured], list[str]]:
    """The references without copies of the pair, which would spoil the null, and notes on those."""
    hashes = {side.model.origin.content_sha256 for side in (target, suspect)} - {""}
    found, notes = [], []
    for reference in references:
        if reference.model.origin.content_sha256 in hashes:
            path = reference.model.origin.path
            notes.append(f"Reference {path} is a copy of the target or the suspect and was left out.")
        else:
            found.append(reference)
    return found, notes
