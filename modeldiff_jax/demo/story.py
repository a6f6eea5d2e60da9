"""Runs the demo, from its first image to its table."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from modeldiff_jax.demo import derive
from modeldiff_jax.demo.data import DIGIT, N_TEST, REMAINDER, Images, Task, load_images
from modeldiff_jax.demo.zoo import Network, train
from modeldiff_jax.detection.compare import compare
from modeldiff_jax.detection.decision import Verdict
from modeldiff_jax.models.model import Model
from modeldiff_jax.probes.adapt import adapt
from modeldiff_jax.probes.make import make_probes
from modeldiff_jax.probes.pgd import Direction
from modeldiff_jax.report import HtmlReport
from modeldiff_jax.runtime.environment import SCHEMA_VERSION, environment
from modeldiff_jax.runtime.progress import Progress

ALPHA = 0.05
N_REFERENCES = 24
"""For each task; a p-value is never below 1 / (n + 1), so 0.05 needs 19."""
N_UNRELATED = 2
"""Unrelated suspects for each task."""
_TASKS = (DIGIT, REMAINDER)
_STEPS, _DERIVED_STEPS = 500, 1200
# Chosen on other keys than the default one. Partners in the paper's direction, within a fifth of the value range (a
# digit is a few strokes of full contrast), detect fine-tuned and stolen networks better here than the general defaults.
_N_PAIRS, _EPS = N_TEST // 2, 0.2  # half of the test images, so both run in batches of one size and compile once
_DIRECTION: Direction = "toward"
_PRUNED = 0.5


@dataclass(frozen=True)
class Row:
    """One model of the story.

    Attributes:
      name: name of the model.
      kind: `teacher`, `derived` or `unrelated`.
      how: description of how it was made.
      classes: size of its label space.
      accuracy: share of right labels on test images that no model was trained on.
      similarity, p_value, verdict: of the comparison with the teacher; None for the teacher itself.
    """

    name: str
    kind: str
    how: str
    classes: int
    accuracy: float
    similarity: float | None
    p_value: float | None
    verdict: Verdict | None


@dataclass(frozen=True)
class DemoResult(HtmlReport):
    """The demo's table, with key and wall time.

    Attributes:
      rows: the teacher first.
      alpha: error rate of the verdicts.
      notes: how the p-values were made, and every verdict that is wrong, since here the truth is known.
      key: random key of data split, weights, recipes and probes.
      seconds: wall time by stage, and `total`.
    """

    rows: tuple[Row, ...]
    alpha: float
    notes: tuple[str, ...]
    key: int
    seconds: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as JSON-able data, by the schema `modeldiff_jax/report/schema.json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "demo",
            **environment(),
            "rows": [asdict(row) for row in self.rows],
            "alpha": self.alpha,
            "notes": list(self.notes),
            "key": self.key,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


@dataclass(frozen=True)
class _Suspect:
    name: str
    kind: str
    how: str
    network: Network


def run_demo(key: int = 0, progress: Progress | None = None) -> DemoResult:
    """Trains a teacher, five models derived from it and four unrelated ones, and compares each with the teacher.

    Every number is computed in this call. Partners are made on the teacher from its owner's training images; the
    references of a suspect are unrelated networks with the suspect's label space, since how similar unrelated networks
    are depends on it.

    Args:
      key: random key: data split, weights, recipes, probes.
      progress: called before each step.
    Returns:
      One row for each model, with the comparison's verdict, right or wrong.
    """
    clock = _Clock(progress or (lambda *_: None))
    rng = np.random.default_rng(key)
    clock("data", "Preparing the images")
    owned, pool, test = load_images(rng)
    clock("train", "Training the teacher and the unrelated networks")
    teacher, references, unrelated = _first_generation(pool, rng, clock.within)
    clock("derive", "Fine-tuning, pruning, quantising, distilling and stealing the teacher")
    suspects = [*_derived(teacher, pool, rng), *unrelated]
    clock("probes", "Making partners on the teacher")
    model = teacher.model("teacher")
    probes = make_probes(model, seeds=owned.pixels, n_pairs=_N_PAIRS, key=key, eps=_EPS, direction=_DIRECTION)
    clock("compare", "Comparing with the teacher")
    accuracy = _accuracy(model, DIGIT, test)
    rows = [Row("teacher", "teacher", "trained on all training images", DIGIT.classes, accuracy, None, None, None)]
    for i, suspect in enumerate(suspects):
        clock.within(f"Comparing with the teacher: {suspect.name}", i / len(suspects))
        task, suspect_model = suspect.network.task, suspect.network.model(suspect.name)
        comparison = compare(model, suspect_model, probes=probes, references=references[task], alpha=ALPHA)
        rows.append(
            Row(
                suspect.name,
                suspect.kind,
                suspect.how,
                task.classes,
                _accuracy(suspect_model, task, test),
                comparison.similarity,
                comparison.p_value,
                comparison.verdict,
            )
        )
    return DemoResult(tuple(rows), ALPHA, _notes(rows), key, clock.finish())


def _first_generation(
    pool: Images, rng: np.random.Generator, within: Callable[[str, float], None]
) -> tuple[Network, dict[Task, list[Model]], list[_Suspect]]:
    """Trains the teacher, and for each task references and unrelated suspects, which are made alike."""
    recipes = [derive.trained(DIGIT, pool, rng)]
    recipes += [derive.unrelated(task, pool, rng) for task in _TASKS for _ in range(N_REFERENCES + N_UNRELATED)]
    total = len(recipes)
    networks = iter(train(recipes, _STEPS, lambda done: within(f"Trained {done} of {total} networks", done / total)))
    teacher = next(networks)
    references: dict[Task, list[Model]] = {}
    unrelated: list[_Suspect] = []
    for task in _TASKS:
        references[task] = [next(networks).model(f"reference {i + 1}: {task.name}") for i in range(N_REFERENCES)]
        for network in islice(networks, N_UNRELATED):
            name, how = f"unrelated {len(unrelated) + 1}", f"its own weights, images and recipe; {task.name}"
            unrelated.append(_Suspect(name, "unrelated", how, network))
    return teacher, references, unrelated


def _derived(teacher: Network, pool: Images, rng: np.random.Generator) -> list[_Suspect]:
    recipes = [
        derive.fine_tuned(teacher, REMAINDER, pool, rng),
        derive.pruned(teacher, _PRUNED, pool, rng),
        derive.distilled(teacher, pool, rng),
        derive.stolen(teacher, pool, rng),
    ]
    tuned, pruned, distilled, stolen = train(recipes, _DERIVED_STEPS)
    named = (
        ("fine-tuned", f"a new head, {REMAINDER.name}; half of the images", tuned),
        ("pruned", f"{_PRUNED:.0%} of the weights cut, then a short training", pruned),
        ("quantised", "weights and activations in 8 bits", derive.quantised(teacher)),
        ("distilled", "fresh weights; true labels and the teacher's features", distilled),
        ("stolen", "fresh weights; only the teacher's answers to queries", stolen),
    )
    return [_Suspect(name, "derived", how, network) for name, how, network in named]


def _accuracy(model: Model, task: Task, test: Images) -> float:
    """Returns the share of the test images whose highest output is at the true label."""
    outputs = adapt(model).react(test.pixels)  # as the comparison runs it, so nothing new is compiled
    return float(np.mean(np.argmax(outputs, axis=1) == task.labels(test.digits)))


def _notes(rows: Sequence[Row]) -> tuple[str, ...]:
    missed = [row for row in rows if row.kind == "derived" and row.verdict != "reused"]
    accused = [row for row in rows if row.kind == "unrelated" and row.verdict == "reused"]
    notes = [
        f"One set of {_N_PAIRS} probe pairs, made on the teacher from its owner's training images.",
        f"p-values: rank among {N_REFERENCES} more unrelated networks with the suspect's label space, so never below "
        f"1/{N_REFERENCES + 1} = {1 / (N_REFERENCES + 1):.2g}. Verdicts at alpha {ALPHA:g}.",
    ]
    notes += [f"Missed: {row.name}, which was made from the teacher, at p = {row.p_value:.2g}." for row in missed]
    notes += [
        f"False alarm: {row.name} is unrelated. It happens to one unrelated network in {1 / ALPHA:.0f}."
        for row in accused
    ]
    return tuple(notes)


class _Clock:
    """Measures wall time by stage, and reports progress in per cent of the time that stages usually take."""

    _SHARES: ClassVar[dict[str, int]] = {"data": 8, "train": 52, "derive": 15, "probes": 10, "compare": 15}

    def __init__(self, progress: Progress) -> None:
        self._progress, self._stage = progress, ""
        self._start = self._last = time.perf_counter()
        self._seconds: dict[str, float] = {}

    def __call__(self, stage: str, message: str) -> None:
        """Begins a stage."""
        self._end()
        self._stage = stage
        self.within(message, 0.0)

    def within(self, message: str, share: float) -> None:
        """Reports that a share of the stage is done."""
        before = sum(self._SHARES[stage] for stage in self._seconds)
        self._progress(message, round(before + share * self._SHARES[self._stage]), 100)

    def finish(self) -> dict[str, float]:
        self._end()
        self._progress("Done", 100, 100)
        return {**self._seconds, "total": self._last - self._start}

    def _end(self) -> None:
        now = time.perf_counter()
        if self._stage:
            self._seconds[self._stage] = now - self._last
        self._last = now
