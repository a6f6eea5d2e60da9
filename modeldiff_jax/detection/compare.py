"""Two models -> a verdict with the evidence behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from modeldiff_jax.detection import conformal as calibrate
from modeldiff_jax.detection.ranking import Ranking, Reference, measured, rank
from modeldiff_jax.evidence.access import ALL, check
from modeldiff_jax.evidence.decision_distance import DDV, ddv_similarity, measure
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.inputs.space import InputHint, space_of
from modeldiff_jax.models.load import ModelLike, as_model
from modeldiff_jax.models.model import Model
from modeldiff_jax.probes.adapt import adapt
from modeldiff_jax.probes.make import make_probes
from modeldiff_jax.probes.probe_set import ProbeSet
from modeldiff_jax.report import render
from modeldiff_jax.runtime.environment import SCHEMA_VERSION, environment
from modeldiff_jax.runtime.progress import Progress, StepClock


@dataclass(frozen=True, slots=True)
class Orientation:
    """One probe set and what it says of the pair.

    Attributes:
      made_on: the side the partners were made on: `target`, `suspect`, or `given` for probes passed in.
      similarity: cosine of the two DDVs, in [-1, 1].
    """

    made_on: str
    probes: ProbeSet
    target_ddv: DDV
    suspect_ddv: DDV
    similarity: float


@dataclass(frozen=True)
class Comparison:
    """The outcome of comparing a suspect with a target.

    Attributes:
      orientations: one per probe set; the first one gives `similarity` and the p-value.
      ranking: where the suspect stands among references, under the first orientation's probe set.
      access: what the suspect told.
      adaptations: what was changed to turn probes into each model's input, by side.
      queries: inputs each side was run on.
      notes: what a careful reader should know, such as references left out.
      seconds: wall time by step.
    """

    target: Model
    suspect: Model
    orientations: tuple[Orientation, ...]
    ranking: Ranking
    access: str
    key: int
    adaptations: Mapping[str, tuple[str, ...]]
    queries: Mapping[str, int]
    notes: tuple[str, ...]
    limits: Limits
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def similarity(self) -> float:
        """Cosine similarity of the two decision distance vectors, in [-1, 1]."""
        return self.orientations[0].similarity

    @property
    def p_value(self) -> float | None:
        """Conformal p-value against the references, or by the default calibration; None without either."""
        return self.ranking.judgement.p_value

    @property
    def verdict(self) -> calibrate.Verdict:
        """`reused`, `no_evidence` or `inconclusive`; never "independent"."""
        return self.ranking.judgement.verdict

    @property
    def references(self) -> tuple[Reference, ...]:
        """The references, measured under the first orientation's probe set."""
        return self.ranking.references

    @property
    def evidence(self) -> dict[str, float]:
        """Evidence name -> score.

        `ddv_target` is the similarity under partners made on the target, and so on. With enough references also one
        for each view of the reactions that can compare the two models, in standard deviations of unrelated models, and
        the fused ones (`modeldiff_jax.evidence.relatedness`).
        """
        similarities = {f"ddv_{orientation.made_on}": orientation.similarity for orientation in self.orientations}
        return {**similarities, **(self.ranking.standing.scores if self.ranking.standing else {})}

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able data, by the schema `modeldiff_jax/report/schema.json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "compare",
            **environment(),
            "target": self.target.to_dict(),
            "suspect": self.suspect.to_dict(),
            "references": [
                {
                    "path": reference.model.origin.path,
                    "format": reference.model.origin.format,
                    "sha256": reference.model.origin.sha256,
                    "similarity": reference.similarity,
                    "related": reference.related,
                    "counted": reference.counted,
                }
                for reference in self.references
            ],
            "similarity": self.similarity,
            "evidence": self.evidence,
            "score": self.ranking.score,
            "views": self.ranking.views,
            "p_value": self.p_value,
            "calibration": self.ranking.calibration,
            "alpha": self.ranking.alpha,
            "access": self.access,
            "verdict": self.verdict,
            "reason": self.ranking.judgement.reason,
            "probe_set_id": self.orientations[0].probes.probe_set_id,
            "probes": [
                {
                    **orientation.probes.origin,
                    "probe_set_id": orientation.probes.probe_set_id,
                    "made_on": orientation.made_on,
                    "n_pairs": len(orientation.probes),
                    "metric": orientation.probes.metric,
                    "space": orientation.probes.space.to_dict(),
                }
                for orientation in self.orientations
            ],
            "queries": dict(self.queries),
            "adaptations": {side: list(steps) for side, steps in self.adaptations.items()},
            "notes": list(self.notes),
            "limits": self.limits.to_dict(),
            "key": self.key,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }

    def to_html(self) -> str:
        """The result as one self-contained HTML page."""
        return render(self.to_dict(), "html")

    def _repr_html_(self) -> str:
        return self.to_html()


def compare(
    a: ModelLike,
    b: ModelLike,
    *,
    seeds: Any = None,
    probes: ProbeSet | None = None,
    references: Sequence[ModelLike] | None = None,
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
    """Did `b` come from `a`?

    Partners are made on every side that has gradients (on both by black-box search when neither has, or when
    `black_box`), and the two DDVs are compared under each of these probe sets. The first one, made on the target where
    possible, gives `similarity`; as it does not depend on the suspect, references measured under it give a valid
    p-value. With 8 references and more several views of the same reactions are held against them and fused, which finds
    what the DDV alone does not, stolen models first of all.

    Args:
      a: the target, the owner's model; a `Model` or a file.
      b: the suspect; likewise.
      seeds: a folder of images, an array or its file, or a pack's name; None for the built-in pack.
      probes: a ready probe set, instead of making any.
      references: models known to be unrelated to the target, of the suspect's kind: task, size, and architecture where
        it is known. Without any, two image classifiers
        get a verdict by the default calibration (docs/default-calibration.md), everything else is inconclusive.
      n_pairs: probe pairs; None for 100, fewer on models too heavy for the default effort.
      n_steps: attack steps; None for 50, fewer likewise.
      key: random key; the same key, models and seeds give the same DDVs.
      alpha: the error rate the verdict is made for, in (0, 1).
      black_box: use no gradients of either model.
      access: what the suspect tells: `answers`, all of them; `probabilities`; `top-5` or another number, the greatest
        few of them; `labels`, which may be numbers. Under all but `answers` pairs are made on the target only, and
        target and references are seen through the same access. See `modeldiff_jax.evidence.access`.
      hint: which input is probed, and its layout and value range, where they cannot be told from the model.
      limits: bounds on hostile input.
      progress: called before each step.

    Raises:
      ModelDiffError: a model cannot be read, adapted or run, or an argument is wrong; see `errors.py`.
    """
    clock = StepClock(progress, steps=4)
    calibrate.judge(0.0, [], alpha)  # a bad alpha should fail before minutes of work
    check(access)
    with clock("load", "Reading the models"):
        target, suspect = (as_model(m, limits) for m in (a, b))
        space = probes.space if probes else space_of(target, hint)
        sides = {"target": adapt(target, space, hint), "suspect": adapt(suspect, space, hint)}
    probe_sets: dict[str, ProbeSet] = {"given": probes} if probes else {}
    notes: list[str] = []
    if not probes:
        alone = access == ALL and any(side.n_components == 1 for side in sides.values())
        metric = "euclidean" if alone else "cosine"
        gradients = {name: side.has_gradients and not black_box for name, side in sides.items()}
        makers = [name for name, has in gradients.items() if has] or ["target", "suspect"]
        makers = makers if access == ALL else ["target"]
        same = target.origin.content_sha256 == suspect.origin.content_sha256 != ""
        if same:
            notes.append("The two models are the same file, bit for bit.")

        def made(name: str) -> ProbeSet:
            return make_probes(
                sides[name],
                seeds=seeds,
                n_pairs=n_pairs,
                n_steps=n_steps,
                key=key,
                method=None if gradients[name] else "search",
                metric=metric,
                beside=tuple(side for other, side in sides.items() if other != name),
                limits=limits,
            )

        # Compiling takes most of the time and one core, so two models are compiled side by side. A stranger's function,
        # though, may not stand two calls at once.
        working = makers[:1] if same else makers
        threads = len(working) if target.traceable and suspect.traceable else 1
        with (
            clock("probes", f"Making partners on the {' and the '.join(working)}"),
            ThreadPoolExecutor(threads) as pool,
        ):
            ready = list(pool.map(made, working))
        probe_sets = {name: ready[min(i, len(ready) - 1)] for i, name in enumerate(makers)}
    with clock("ddv", "Measuring both models"):
        first, *more = probe_sets.items()
        own = measured(sides["target"], first[1], access)
        labels = own.answers.n_outputs
        ends = {"target": own, "suspect": measured(sides["suspect"], first[1], access, labels)}
        orientations = (
            _orientation(*first, ends["target"].ddv, ends["suspect"].ddv),
            *(_orientation(*each, *(measure(side, each[1]) for side in sides.values())) for each in more),
        )
    with clock("references", "Measuring the references"):
        models = (as_model(source, limits) for source in references or ())
        others = (measured(adapt(model, space, hint), first[1], access, labels) for model in models)
        ranking = rank(ends["target"], ends["suspect"], others, first[1], alpha, access)
    return Comparison(
        target=target,
        suspect=suspect,
        orientations=orientations,
        ranking=ranking,
        access=access,
        key=key,
        adaptations={name: side.steps for name, side in sides.items()},
        queries={name: side.queries for name, side in sides.items()},
        notes=(*notes, *ranking.notes),
        limits=limits,
        seconds=clock.finish(),
    )


def _orientation(made_on: str, probes: ProbeSet, target: DDV, suspect: DDV) -> Orientation:
    return Orientation(made_on, probes, target, suspect, float(ddv_similarity(target, suspect)))
