"""Which of several suspects came from the target? Verdicts adjusted for how many suspects there are."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modeldiff_jax.detection.conformal import Correction, adjust_p_values
from modeldiff_jax.detection.decision import Decision, Verdict, decide_among
from modeldiff_jax.detection.owner import Failure, Owner
from modeldiff_jax.detection.ranking import Ranking
from modeldiff_jax.detection.settings import Settings
from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.access import ALL
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.discover import ModelSources, model_sources
from modeldiff_jax.models.inputs.probed_input import InputHint
from modeldiff_jax.models.load import ModelLike
from modeldiff_jax.models.model import ModelSummary
from modeldiff_jax.probes.probe_set import ProbeSet
from modeldiff_jax.report import HtmlReport
from modeldiff_jax.runtime.environment import SCHEMA_VERSION, environment
from modeldiff_jax.runtime.progress import Progress, no_progress


@dataclass(frozen=True)
class Finding:
    """One suspect.

    Attributes:
      model: where it came from, and its interface.
      ranking: where it stands among references, and the decision on it alone.
      adjusted_p_value: its decisive p-value, adjusted for being one of several; None without one.
      decision: the decision on it as one of several.
    """

    model: ModelSummary
    ranking: Ranking
    adjusted_p_value: float | None
    decision: Decision

    @property
    def similarity(self) -> float:
        """Cosine of its DDV and the target's, in [-1, 1]."""
        return self.ranking.similarity

    @property
    def verdict(self) -> Verdict:
        """`reused`, `no_evidence` or `inconclusive`, as one of several."""
        return self.decision.verdict


@dataclass(frozen=True)
class Screening(HtmlReport):
    """Several suspects ranked against one target. It holds no model and can be pickled.

    Attributes:
      target: where it came from, and its interface.
      probes: N pairs made on the target.
      findings: in the suspects' order.
      failures: suspects and references that could not be read, adapted or run.
      correction: how p-values were adjusted.
      alpha: the error rate over all suspects.
      access: which part of its outputs each suspect exposed.
      key: random key.
      notes: what a careful reader should know.
      seconds: wall time by step.
    """

    target: ModelSummary
    probes: ProbeSet
    findings: tuple[Finding, ...]
    failures: tuple[Failure, ...]
    correction: Correction
    alpha: float
    access: str
    key: int
    notes: tuple[str, ...]
    seconds: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as JSON-able data, by the schema `modeldiff_jax/report/schema.json`."""
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
                    **finding.ranking.to_dict(),
                    "adjusted_p_value": finding.adjusted_p_value,
                    "verdict": finding.verdict,
                    "basis": finding.decision.basis,
                    "references_needed": finding.decision.references_needed,
                    "reason": finding.decision.reason,
                }
                for finding in self.findings
            ],
            "failures": [failure.to_dict() for failure in self.failures],
            "notes": list(self.notes),
            "key": self.key,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


def screen(
    target: ModelLike,
    suspects: ModelSources,
    *,
    references: ModelSources = (),
    correction: Correction = "holm",
    probes: ProbeSet | None = None,
    seeds: Any = None,
    n_pairs: int | None = None,
    n_steps: int | None = None,
    key: int = 0,
    alpha: float = 0.05,
    black_box: bool = False,
    access: str = ALL,
    hint: InputHint | None = None,
    limits: Limits = DEFAULT,
    isolate: bool | None = None,
    progress: Progress | None = None,
) -> Screening:
    """Screens several suspects: which of them came from the target?

    Pairs are made once, on the target, and each suspect is ranked among the references as `compare` does. Among many
    suspects one has a small p-value by chance; `correction` allows for that. Suspects identical to the target are
    `reused` and not counted among the tests.

    Args:
      target: the owner's model; a `Model` or a file.
      suspects: one or more; models, files or folders. One that cannot be read or run is left out and named in
        `failures`.
      references: models known to be unrelated to the target, of the suspects' kinds; likewise.
      correction: `holm` (the chance of even one false accusation is alpha at most) or `benjamini-hochberg` (the
        expected share of false ones among all accusations is alpha at most); see
        `modeldiff_jax.detection.conformal.adjust_p_values`.
      probes: a ready probe set, instead of making any.
      seeds, n_pairs, n_steps, key, alpha, black_box, access, hint, limits: see `modeldiff_jax.detection.settings`.
      isolate: measure suspects and references that are files in a child process with limits on memory and time, so that
        a harmful one is named and left out; None for yes if there are several files.
      progress: called before each step.
    Raises:
      ModelDiffError: the target or every suspect cannot be read, adapted or run, or an argument is wrong.
    """
    adjust_p_values([], correction)  # a bad argument should fail before minutes of work
    report, start = progress or no_progress, time.perf_counter()
    asked, left_out = model_sources(suspects, limits)
    unrelated, more = model_sources(references, limits)
    if not asked:
        raise InvalidInputError("There is a suspect to screen", got="none", where="screen")
    files = [source for source in (*asked, *unrelated) if isinstance(source, (str, os.PathLike))]
    settings = Settings(
        seeds=seeds,
        n_pairs=n_pairs,
        n_steps=n_steps,
        key=key,
        alpha=alpha,
        black_box=black_box,
        access=access,
        hint=hint,
        limits=limits,
        isolate=len(files) > 1 if isolate is None else isolate,
    )
    steps = 1 + len(unrelated) + len(asked)
    report("Making partners on the target", 0, steps)
    with Owner.of(target, settings, probes) as owner:
        prepared = time.perf_counter()
        null, failures = owner.measure_all(
            unrelated, "reference", lambda i: report(f"Reference {i + 1} of {len(unrelated)}", 1 + i, steps)
        )
        known = [m for m in null if m]
        measured, failed = owner.measure_all(
            asked, "suspect", lambda i: report(f"Suspect {i + 1} of {len(asked)}", 1 + len(unrelated) + i, steps)
        )
    if len(failed) == len(asked):
        raise failed[0].error
    rankings = [owner.rank(suspect, known) for suspect in measured if suspect]
    report("Done", steps, steps)
    end = time.perf_counter()
    failures += failed
    notes = dict.fromkeys(note for ranking in rankings for note in ranking.notes)
    return Screening(
        target=owner.measurement.model,
        probes=owner.probes,
        findings=_findings([m.model for m in measured if m], rankings, correction, alpha),
        failures=tuple(failures),
        correction=correction,
        alpha=alpha,
        access=access,
        key=key,
        notes=(*map(str, failures), *notes, *left_out, *more),
        seconds={"probes": prepared - start, "suspects": end - prepared, "total": end - start},
    )


def _findings(
    models: Sequence[ModelSummary], rankings: Sequence[Ranking], correction: Correction, alpha: float
) -> tuple[Finding, ...]:
    """Adjusts the p-values of all suspects that were tested, and decides on each."""
    p_values = [
        None if ranking.decision.basis == "identity" else ranking.decision.decisive_p_value for ranking in rankings
    ]
    tested = [p for p in p_values if p is not None]
    adjusted = iter(adjust_p_values(tested, correction))
    findings = []
    for model, ranking, p in zip(models, rankings, p_values, strict=True):
        value = None if p is None else next(adjusted)
        decision = decide_among(ranking.decision, value, alpha, len(tested))
        findings.append(Finding(model, ranking, value, decision))
    return tuple(findings)
