"""Which of several suspects came from a model? P-values adjusted for how many were asked about."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from modeldiff_jax.detection import conformal as calibrate
from modeldiff_jax.detection.conformal import Correction, Verdict
from modeldiff_jax.detection.ranking import Ranking, measured, rank
from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.access import ALL, check
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.inputs.space import InputHint, space_of
from modeldiff_jax.models.load import ModelLike, as_model
from modeldiff_jax.models.model import Model
from modeldiff_jax.probes.adapt import adapt
from modeldiff_jax.probes.make import Method, make_probes
from modeldiff_jax.probes.probe_set import ProbeSet
from modeldiff_jax.report import HtmlReport
from modeldiff_jax.runtime.environment import SCHEMA_VERSION, environment
from modeldiff_jax.runtime.progress import Progress


@dataclass(frozen=True)
class Finding:
    """One suspect.

    Attributes:
      similarity: cosine of its DDV and the target's, in [-1, 1].
      ranking: where it stands among references, and its own p-value.
      adjusted: the p-value for being one of several; None without a p-value.
      verdict: of `adjusted`. `inconclusive` where no reference scores as high and yet they are too few for so many
        suspects.
    """

    model: Model
    similarity: float
    ranking: Ranking
    adjusted: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Screening(HtmlReport):
    """Several suspects held against one target; findings in the suspects' order."""

    target: Model
    probes: ProbeSet
    findings: tuple[Finding, ...]
    correction: Correction
    alpha: float
    access: str
    key: int
    seconds: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able data, by the schema `modeldiff_jax/report/schema.json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "screen",
            **environment(),
            "target": self.target.to_dict(),
            "probe_set_id": self.probes.probe_set_id,
            "correction": self.correction,
            "alpha": self.alpha,
            "access": self.access,
            "rows": [
                {
                    "suspect": finding.model.to_dict(),
                    "similarity": finding.similarity,
                    "score": finding.ranking.score,
                    "views": finding.ranking.views,
                    "null_scores": {name: list(scores) for name, scores in finding.ranking.null_scores.items()},
                    "calibration": finding.ranking.calibration,
                    "p_value": finding.ranking.judgement.p_value,
                    "adjusted_p_value": finding.adjusted,
                    "verdict": finding.verdict,
                }
                for finding in self.findings
            ],
            "notes": sorted({note for finding in self.findings for note in finding.ranking.notes}),
            "key": self.key,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


def screen(
    target: ModelLike,
    suspects: Sequence[ModelLike],
    *,
    references: Sequence[ModelLike] = (),
    correction: Correction = "holm",
    seeds: Any = None,
    probes: ProbeSet | None = None,
    n_pairs: int | None = None,
    n_steps: int | None = None,
    key: int = 0,
    alpha: float = 0.05,
    black_box: bool = False,
    access: str = ALL,
    hint: InputHint | None = None,
    limits: Limits = DEFAULT,
    progress: Progress | None = None,
) -> Screening:
    """Which of several suspects came from the target?

    Pairs are made once, on the target, and each suspect is ranked among the references as `compare` does. Who asks
    about many finds a small p-value among them by chance; `correction` allows for that.

    Args:
      target: the owner's model; a `Model` or a file.
      suspects: one or more, likewise.
      references: models known to be unrelated to the target, of the suspects' kinds. Under `holm` it takes
        m / alpha - 1 of them to tell on any of m suspects.
      correction: `holm` (no false accusation at all, but for a chance of alpha) or `benjamini-hochberg` (a share of at
        most alpha among those accused, as expected); see `modeldiff_jax.detection.conformal.adjusted`.
      seeds, probes, n_pairs, n_steps, key, alpha, black_box, access, hint, limits, progress: as `compare` takes them.
    Raises:
      ModelDiffError: a model cannot be read, adapted or run, or an argument is wrong; see `errors.py`.
    """
    say, start = progress or (lambda *_: None), time.perf_counter()
    calibrate.judge(0.0, [], alpha)  # bad arguments should fail before minutes of work
    calibrate.adjusted([], correction)
    check(access)
    if not suspects:
        raise InvalidInputError("There is a suspect to screen", got="none", where="screen")
    say("Reading the target", 0, len(suspects) + 2)
    owner = as_model(target, limits)
    side = adapt(owner, probes.space if probes else space_of(owner, hint), hint)
    say("Making partners on the target", 1, len(suspects) + 2)
    method: Method | None = "search" if black_box else None
    made = probes or make_probes(
        side, seeds=seeds, n_pairs=n_pairs, n_steps=n_steps, key=key, method=method, limits=limits
    )
    own = measured(side, made, access)
    seen = partial(measured, probes=made, access=access, n_labels=own.answers.n_outputs)
    prepared = time.perf_counter()

    strangers = [seen(adapt(as_model(source, limits), made.space, hint)) for source in references]
    rankings = []
    for i, source in enumerate(suspects):
        say(f"Suspect {i + 1} of {len(suspects)}", i + 2, len(suspects) + 2)
        suspect = seen(adapt(as_model(source, limits), made.space, hint))
        rankings.append((suspect, rank(own, suspect, strangers, made, alpha, access)))
    p_values = [ranking.judgement.p_value for _, ranking in rankings]
    asked = [p for p in p_values if p is not None]
    adjusted = iter(calibrate.adjusted(asked, correction))
    findings = []
    for (suspect, ranking), p in zip(rankings, p_values, strict=True):
        value = None if p is None else next(adjusted)
        findings.append(Finding(suspect.model, ranking.similarity, ranking, value, _verdict(ranking, value, alpha)))
    say("Done", len(suspects) + 2, len(suspects) + 2)
    end = time.perf_counter()
    seconds = {"probes": prepared - start, "suspects": end - prepared, "total": end - start}
    return Screening(owner, made, tuple(findings), correction, alpha, access, key, seconds)


def _verdict(ranking: Ranking, adjusted: float | None, alpha: float) -> Verdict:
    if adjusted is None or ranking.judgement.verdict == "inconclusive":
        return "inconclusive"
    if adjusted <= alpha:
        return "reused"
    return "inconclusive" if ranking.judgement.p_value == ranking.least_p_value else "no_evidence"
