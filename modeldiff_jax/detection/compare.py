"""Comparing two models: was the suspect made from the target? A verdict, with the evidence behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from modeldiff_jax.detection.decision import Verdict
from modeldiff_jax.detection.owner import Failure, Owner
from modeldiff_jax.detection.ranking import Ranking, Reference
from modeldiff_jax.detection.settings import Settings
from modeldiff_jax.evidence.access import ALL
from modeldiff_jax.evidence.decision_distance import DDV, ddv_similarity, measure_ddv
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.discover import ModelSources, model_sources
from modeldiff_jax.models.inputs.probed_input import InputHint
from modeldiff_jax.models.load import ModelLike, as_model
from modeldiff_jax.models.model import ModelSummary
from modeldiff_jax.probes.adapt import Adapter, adapt
from modeldiff_jax.probes.effort import Method
from modeldiff_jax.probes.make import make_probes
from modeldiff_jax.probes.probe_set import ProbeSet
from modeldiff_jax.report import HtmlReport
from modeldiff_jax.runtime.environment import SCHEMA_VERSION, environment
from modeldiff_jax.runtime.progress import Progress, StepClock

_IDENTICAL_ROUNDS = 1
"""Rounds of hill climbing where the two files are the same: nothing depends on how good these pairs are."""


@dataclass(frozen=True, slots=True)
class Orientation:
    """One probe set, by the side it was made on, and the similarity of target and suspect under it.

    Attributes:
      made_on: the side that partners were made on: `target`, `suspect`, or `given` for probes passed in.
      probes: N probe pairs.
      target_ddv, suspect_ddv: decision distance vectors, (N,) each.
      similarity: cosine of the two DDVs, in [-1, 1].
    """

    made_on: str
    probes: ProbeSet
    target_ddv: DDV
    suspect_ddv: DDV
    similarity: float


@dataclass(frozen=True)
class Comparison(HtmlReport):
    """The result of comparing a suspect with a target. It holds no model and can be pickled.

    Attributes:
      target, suspect: origin and interface of each model.
      orientations: one for each probe set; the first gives `similarity` and the p-value.
      ranking: the suspect's rank among the references, under the first orientation's probe set.
      access: access level: which part of its outputs the suspect exposed.
      key: random key.
      adaptations: every change that turned probes into a model's input, by side.
      queries: number of inputs that each side was run on.
      failures: references that could not be used.
      notes: remarks for a careful reader, such as which references were left out.
      limits: limits that the models were read under.
      seconds: wall time by step.
    """

    target: ModelSummary
    suspect: ModelSummary
    orientations: tuple[Orientation, ...]
    ranking: Ranking
    access: str
    key: int
    adaptations: Mapping[str, tuple[str, ...]]
    queries: Mapping[str, int]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    limits: Limits
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def similarity(self) -> float:
        """Cosine similarity of the two decision distance vectors, in [-1, 1]."""
        return self.orientations[0].similarity

    @property
    def p_value(self) -> float | None:
        """Conformal p-value, from the rank among the references; None without references."""
        return self.ranking.decision.p_value

    @property
    def verdict(self) -> Verdict:
        """`reused`, `no_evidence` or `inconclusive`; never "independent"."""
        return self.ranking.decision.verdict

    @property
    def reason(self) -> str:
        """Reason for the verdict, in words."""
        return self.ranking.decision.reason

    @property
    def references(self) -> tuple[Reference, ...]:
        """The references, measured under the first orientation's probe set."""
        return self.ranking.references

    @property
    def evidence(self) -> dict[str, float]:
        """Scores by the name of the evidence.

        `ddv_target` is the similarity under partners made on the target, and so on. With enough references there is
        also a score for each representation that can compare the two models, in standard deviations of the
        references, and the fused score, `related` (`modeldiff_jax.evidence.relatedness`).
        """
        similarities = {f"ddv_{orientation.made_on}": orientation.similarity for orientation in self.orientations}
        return {**similarities, **(self.ranking.scores.suspect if self.ranking.scores else {})}

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as JSON-able data, by the schema `modeldiff_jax/report/schema.json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "compare",
            **environment(),
            "target": self.target.to_dict(),
            "suspect": self.suspect.to_dict(),
            "references": [
                {
                    "path": reference.origin.path,
                    "format": reference.origin.format,
                    "sha256": reference.origin.sha256,
                    "similarity": reference.similarity,
                    "related": reference.related,
                    "counted": reference.counted,
                }
                for reference in self.references
            ],
            "similarity": self.similarity,
            "evidence": self.evidence,
            **self.ranking.to_dict(),
            "alpha": self.ranking.alpha,
            "access": self.access,
            "probe_set_id": self.orientations[0].probes.probe_set_id,
            "probes": [
                {
                    **orientation.probes.origin,
                    "probe_set_id": orientation.probes.probe_set_id,
                    "made_on": orientation.made_on,
                    "n_pairs": len(orientation.probes),
                    "metric": orientation.probes.metric,
                    "target_ddv": orientation.target_ddv.to_list(),
                    "suspect_ddv": orientation.suspect_ddv.to_list(),
                    "space": orientation.probes.space.to_dict(),
                }
                for orientation in self.orientations
            ],
            "queries": dict(self.queries),
            "adaptations": {side: list(steps) for side, steps in self.adaptations.items()},
            "failures": [failure.to_dict() for failure in self.failures],
            "notes": list(self.notes),
            "limits": self.limits.to_dict(),
            "key": self.key,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


def compare(
    a: ModelLike,
    b: ModelLike,
    *,
    references: ModelSources = (),
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
    progress: Progress | None = None,
) -> Comparison:
    """Compares a suspect with a target: was `b` made from `a`?

    Partners are made on every side that has gradients (on both sides by hill climbing when neither has, or when
    `black_box`), and the two DDVs are compared under each of these probe sets. The first one, made on the target where
    possible, gives `similarity`; as it does not depend on the suspect, references measured under it give a valid
    p-value. With 8 or more references, several representations of the reactions are scored against them and fused,
    which detects reuse that the DDV alone misses, above all stealing.

    Args:
      a: the target, the owner's model; a `Model` or a file.
      b: the suspect; a `Model` or a file.
      references: models known to be unrelated to the target, of the suspect's kind: task, size, and architecture where
        it is known; models, files or folders. One that cannot be read or run is left out and named in `failures`.
        Without any the verdict is `inconclusive`, unless the two models are identical.
      probes: a ready probe set, instead of making one.
      seeds, n_pairs, n_steps, key, alpha, black_box, access, hint, limits: see `modeldiff_jax.detection.settings`.
        Under any access level but `outputs`, pairs are made on the target only, and the outputs of target and
        references are restricted likewise.
      progress: called before each step.

    Raises:
      ModelDiffError: target or suspect cannot be read, adapted or run, or an argument is wrong; see `errors.py`.
    """
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
    )
    clock = StepClock(progress, steps=4)
    with clock("load", "Reading the models"):
        target = adapt(as_model(a, limits), probes.space if probes else None, hint)
        suspect = adapt(as_model(b, limits), target.space, hint)
        reference_sources, left_out = model_sources(references, limits)
    identical = target.model.origin.content_sha256 == suspect.model.origin.content_sha256 != ""
    if probes:
        probe_sets = {"given": probes}
    else:
        makers = ["target"] if identical else _makers(target, suspect, settings)
        with clock("probes", f"Making partners on the {' and the '.join(makers)}"):
            probe_sets = _make_probe_sets(target, suspect, makers, settings, identical)
    with clock("ddv", "Measuring both models"):
        (made_on, first), *others = probe_sets.items()
        owner = Owner(target, first, settings)
        suspect_measurement = owner.measure(suspect)
        orientations = (
            _orientation(made_on, first, owner.measurement.ddv, suspect_measurement.ddv),
            *(_orientation(side, p, measure_ddv(target, p), measure_ddv(suspect, p)) for side, p in others),
        )
    with clock("references", "Measuring the references"):
        measurements, failures = owner.measure_all(reference_sources, "reference")
        ranking = owner.rank(suspect_measurement, [m for m in measurements if m])
    sides = {"target": target, "suspect": suspect}
    return Comparison(
        target=target.model.summary,
        suspect=suspect.model.summary,
        orientations=orientations,
        ranking=ranking,
        access=access,
        key=key,
        adaptations={name: side.steps for name, side in sides.items()},
        queries={name: side.queries for name, side in sides.items()},
        failures=tuple(failures),
        notes=(*map(str, failures), *ranking.notes, *left_out),
        limits=limits,
        seconds=clock.finish(),
    )


def _makers(target: Adapter, suspect: Adapter, settings: Settings) -> list[str]:
    """Returns the sides that partners are made on."""
    if settings.access != ALL:
        return ["target"]
    sides = {"target": target, "suspect": suspect}
    return [name for name, side in sides.items() if _by_gradients(side, settings)] or list(sides)


def _by_gradients(side: Adapter, settings: Settings) -> bool:
    return side.has_gradients and not settings.black_box


def _make_probe_sets(
    target: Adapter, suspect: Adapter, makers: Sequence[str], settings: Settings, identical: bool
) -> dict[str, ProbeSet]:
    """Makes a probe set on each side that `makers` names."""
    sides = {"target": target, "suspect": suspect}
    one_component = settings.access == ALL and any(side.n_components == 1 for side in sides.values())

    def make(name: str) -> ProbeSet:
        by_queries = identical or not _by_gradients(sides[name], settings)
        method: Method | None = "search" if by_queries else None
        return make_probes(
            sides[name],
            seeds=settings.seeds,
            n_pairs=settings.n_pairs,
            n_steps=_IDENTICAL_ROUNDS if identical else settings.n_steps,
            key=settings.key,
            method=method,
            metric="euclidean" if one_component else "cosine",
            beside=tuple(side for other, side in sides.items() if other != name),
            limits=settings.limits,
        )

    # Compiling takes most of the time and one core, so two models are compiled side by side. A user's black box,
    # though, may not allow concurrent calls.
    threads = len(makers) if target.model.traceable and suspect.model.traceable else 1
    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(makers, pool.map(make, makers), strict=True))


def _orientation(made_on: str, probes: ProbeSet, target: DDV, suspect: DDV) -> Orientation:
    return Orientation(made_on, probes, target, suspect, float(ddv_similarity(target, suspect)))
