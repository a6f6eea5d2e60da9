"""Trains many networks at once: one compiled step for each architecture, label space and lesson.

On an accelerator, networks that share a step are stacked and trained by one vmapped call. On CPU they are
trained in threads, one by one: stacked, their convolutions would be grouped ones, which take several times as long.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from operator import itemgetter
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Int

from bench.modelreuse.data import MEAN, STD, Images
from bench.modelreuse.networks import Network
from bench.modelreuse.operations import Variables
from modeldiff_jax.runtime.compilation import Program
from modeldiff_jax.runtime.threads import each

BATCH = 32
_SHIFT = 3
_FEATURE_WEIGHT = 5.0
"""Weight of the imitated features, each divided by its variance, beside the labels (the paper's release)."""
_RADIUS = 8 / 255 / 0.25
"""Radius of a thief's adversarial training, in normalised units."""
_ADAM = optax.scale_by_adam()
Lesson: TypeAlias = Literal["labels", "distil", "soft", "hard", "adversarial"]


@dataclass(frozen=True)
class Job:
    """A job to train one network.

    Attributes:
      arch, classes: architecture and number of classes of the network.
      start: initial variables.
      x, y: (n, 32, 32, 3) images in 0..255, and labels, which only the lessons "labels" and "distil" use.
      steps: number of batches of `BATCH` images.
      seed: random seed of the order of images.
      lesson: labels; distil (labels and a teacher's feature maps); soft, hard or adversarial: a teacher's
        probabilities, its labels, or its labels also on inputs that fool the student.
      teacher: architecture and variables of the teacher, for all but "labels".
      keep: parameter tree of 1 where a weight may change, 0 where it is frozen; None for all.
      alive: likewise, 0 where a weight is pruned.
      rate: highest learning rate; it warms up and falls to 0 along a cosine.
    """

    arch: str
    classes: int
    start: Variables
    x: Images
    y: Int[np.ndarray, " n"]
    steps: int
    seed: int
    lesson: Lesson = "labels"
    teacher: tuple[str, Variables] | None = None
    keep: Any = None
    alive: Any = None
    rate: float = 3e-3
    decay: float = field(default=1e-4)

    @property
    def kind(self) -> Hashable:
        """The values that a compiled step depends on."""
        return self.arch, self.classes, self.lesson, self.teacher[0] if self.teacher else ""


def normalised(x: Any) -> Any:
    """Normalises images in 0..255 for networks."""
    return (jnp.asarray(x, jnp.float32) / 255 - jnp.asarray(MEAN)) / jnp.asarray(STD)


def train(jobs: Sequence[Job], *, stacked: bool | None = None) -> list[Variables]:
    """Trains networks.

    Args:
      jobs: one for each network.
      stacked: whether to train those of one kind and length by one vmapped call; None for no on CPU, else yes.
    """
    if stacked is None:
        stacked = jax.default_backend() != "cpu"
    if not stacked:
        for kind in {job.kind: job for job in jobs}.values():
            _step(*kind.kind).lower(*_state(kind), *_batch(kind, 0)).compile()  # once, not in each thread
        return each(_train_one, jobs)
    groups: dict[Hashable, list[int]] = {}
    for place, job in enumerate(jobs):
        groups.setdefault((job.kind, job.steps), []).append(place)
    done: dict[int, Variables] = {}
    for places in groups.values():
        done |= dict(zip(places, _train_stacked([jobs[place] for place in places]), strict=True))
    return [done[place] for place in range(len(jobs))]


def _train_one(job: Job) -> Variables:
    step = _step(*job.kind)
    fixed, state = _state(job)
    for i in range(job.steps):
        state = step(fixed, state, *_batch(job, i))
    return jax.device_get(state[0])


def _train_stacked(jobs: Sequence[Job]) -> list[Variables]:
    step = _stacked_step(*jobs[0].kind)
    fixed, state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(_state, jobs))
    for i in range(jobs[0].steps):
        x, y, numbers = (np.stack(part) for part in zip(*(_batch(job, i) for job in jobs), strict=True))
        state = step(fixed, state, x, y, numbers)
    variables = jax.device_get(state[0])
    return [jax.tree.map(itemgetter(i), variables) for i in range(len(jobs))]


def _state(job: Job) -> tuple[Any, Any]:
    params = job.start["params"]
    full = jax.tree.map(np.ones_like, params)
    keep = job.keep if job.keep is not None else full
    alive = job.alive if job.alive is not None else full
    start = {**job.start, "params": jax.tree.map(np.multiply, params, alive)}
    return (keep, alive, job.teacher[1] if job.teacher else {}), (start, _ADAM.init(params))


def _batch(job: Job, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns images moved by up to three pixels, their labels, and the numbers of this step."""
    rng = np.random.default_rng([job.seed, i])
    rows = rng.integers(0, len(job.x), BATCH)
    down, right = rng.integers(-_SHIFT, _SHIFT + 1, 2)
    x = np.roll(job.x[rows], (down, right), (1, 2))
    share = i / job.steps
    schedule = min(1.0, (i + 1) / 50) * 0.5 * (1 + np.cos(np.pi * share))
    return x, job.y[rows], np.array([job.rate * schedule, job.decay, _RADIUS], np.float32)


@cache
def _step(arch: str, classes: int, lesson: Lesson, teacher: str) -> Program:
    return Program(partial(_update, arch, classes, lesson, teacher))


@cache
def _stacked_step(arch: str, classes: int, lesson: Lesson, teacher: str) -> Program:
    return Program(jax.vmap(partial(_update, arch, classes, lesson, teacher)))


def _update(
    arch: str, classes: int, lesson: Lesson, teacher: str, fixed: Any, state: Any, x: Any, y: Any, numbers: Any
) -> Any:
    """Takes one step of Adam with decoupled decay (Loshchilov and Hutter, ICLR 2019)."""
    (keep, alive, teacher_variables), (variables, moments) = fixed, state
    rate, decay, radius = numbers
    x = normalised(x)
    student = Network(arch, classes)
    taught, imitated = Network(teacher, classes).apply(teacher_variables, x) if teacher else (None, None)

    def loss(params: Any, x: Any) -> tuple[Any, Any]:
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        (logits, features), changed = student.apply(given, x, train=True, mutable=["batch_stats"])
        if lesson in ("labels", "distil"):
            targets = jax.nn.one_hot(y, classes)
        elif lesson == "soft":
            targets = jax.nn.softmax(taught)
        else:
            targets = jax.nn.one_hot(jnp.argmax(taught, 1), classes)
        value = -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), axis=1))
        if lesson == "distil":
            errors = [jnp.mean((a - b) ** 2) / (jnp.var(b) + 1e-6) for a, b in zip(features, imitated, strict=True)]
            value += _FEATURE_WEIGHT * sum(errors) / len(errors)
        return value, changed["batch_stats"]

    params = variables["params"]
    if lesson == "adversarial":
        gradient = jax.grad(lambda x: loss(params, x)[0])(x)
        x = jnp.concatenate([x[::2], (x + radius * jnp.sign(gradient))[1::2]])
        taught = jnp.concatenate([taught[::2], taught[1::2]])
    gradients, stats = jax.grad(loss, has_aux=True)(params, x)
    steps, moments = _ADAM.update(gradients, moments)

    def moved(w: Any, step: Any, k: Any, live: Any) -> Any:
        return (w - k * rate * (step + decay * w)) * live

    params = jax.tree.map(moved, params, steps, keep, alive)
    return {"params": params, "batch_stats": stats}, moments
