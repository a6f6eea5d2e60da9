"""Training of many networks at once: one compiled step for each architecture, label space and way of teaching.

On an accelerator, networks that share a step are stacked and trained by one vmapped call. On CPU they take turns by
threads, each a network of its own: stacked, their convolutions would be grouped ones, which take several times as long.
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
"""Of the imitated features, each divided by its own variance, beside the labels (the paper's release)."""
_RADIUS = 8 / 255 / 0.25
"""Of a thief's adversarial training, in normalised units."""
_ADAM = optax.scale_by_adam()
Lesson: TypeAlias = Literal["labels", "distil", "soft", "hard", "adversarial"]


@dataclass(frozen=True)
class Job:
    """How to train one network.

    Attributes:
      arch, classes: of the network.
      start: variables to begin with.
      x, y: (n, 32, 32, 3) images in 0..255, and labels, which only the lessons "labels" and "distil" look at.
      steps: batches of `BATCH`.
      seed: of the order of images.
      lesson: labels; distil (labels and a teacher's feature maps); soft, hard or adversarial: a teacher's
        probabilities, its labels, or its labels also on inputs that fool the student.
      teacher: architecture and variables of the teacher, for all but "labels".
      keep: parameter tree of 1 where a weight may change, 0 where it is frozen; None for all.
      alive: likewise, 0 where a weight is pruned away.
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
        """What a compiled step depends on."""
        return self.arch, self.classes, self.lesson, self.teacher[0] if self.teacher else ""


def normalised(x: Any) -> Any:
    """0..255 -> what networks take."""
    return (jnp.asarray(x, jnp.float32) / 255 - jnp.asarray(MEAN)) / jnp.asarray(STD)


def train(jobs: Sequence[Job], *, stacked: bool | None = None) -> list[Variables]:
    """Trains networks.

    Args:
      jobs: one for each.
      stacked: by one vmapped call for all of one kind and length; None for what suits the device.
    """
    if stacked is None:
        stacked = jax.default_backend() != "cpu"
    if not stacked:
        for kind in {job.kind: job for job in jobs}.values():
            _step(*kind.kind).lower(*_state(kind), *_batch(kind, 0)).compile()  # once, not in each thread
        return each(_alone, jobs)
    groups: dict[Hashable, list[int]] = {}
    for place, job in enumerate(jobs):
        groups.setdefault((job.kind, job.steps), []).append(place)
    done: dict[int, Variables] = {}
    for places in groups.values():
        done |= dict(zip(places, _together([jobs[place] for place in places]), strict=True))
    return [done[place] for place in range(len(jobs))]


def _alone(job: Job) -> Variables:
    step = _step(*job.kind)
    fixed, state = _state(job)
    for i in range(job.steps):
        state = step(fixed, state, *_batch(job, i))
    return jax.device_get(state[0])


def _together(jobs: Sequence[Job]) -> list[Variables]:
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
    """Images moved by up to three pixels, their labels, and the numbers of this step."""
    rng = np.random.default_rng([job.seed, i])
    rows = rng.integers(0, len(job.x), BATCH)
    down, right = rng.integers(-_SHIFT, _SHIFT + 1, 2)
    x = np.roll(job.x[rows], (down, right), (1, 2))
    share = i / job.steps
    warmth = min(1.0, (i + 1) / 50) * 0.5 * (1 + np.cos(np.pi * share))
    return x, job.y[rows], np.array([job.rate * warmth, job.decay, _RADIUS], np.float32)


@cache
def _step(arch: str, classes: int, lesson: Lesson, teacher: str) -> Program:
    return Program(partial(_update, arch, classes, lesson, teacher))


@cache
def _stacked_step(arch: str, classes: int, lesson: Lesson, teacher: str) -> Program:
    return Program(jax.vmap(partial(_update, arch, classes, lesson, teacher)))


def _update(
    arch: str, classes: int, lesson: Lesson, teacher: str, fixed: Any, state: Any, x: Any, y: Any, numbers: Any
) -> Any:
    """One step of Adam with decoupled decay (Loshchilov and Hutter, ICLR 2019)."""
    (keep, alive, taught), (variables, moments) = fixed, state
    rate, decay, radius = numbers
    x = normalised(x)
    student = Network(arch, classes)
    says, shows = Network(teacher, classes).apply(taught, x) if teacher else (None, None)

    def loss(params: Any, x: Any) -> tuple[Any, Any]:
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        (logits, features), changed = student.apply(given, x, train=True, mutable=["batch_stats"])
        if lesson in ("labels", "distil"):
            wanted = jax.nn.one_hot(y, classes)
        elif lesson == "soft":
            wanted = jax.nn.softmax(says)
        else:
            wanted = jax.nn.one_hot(jnp.argmax(says, 1), classes)
        value = -jnp.mean(jnp.sum(wanted * jax.nn.log_softmax(logits), axis=1))
        if lesson == "distil":
            gaps = [jnp.mean((a - b) ** 2) / (jnp.var(b) + 1e-6) for a, b in zip(features, shows, strict=True)]
            value += _FEATURE_WEIGHT * sum(gaps) / len(gaps)
        return value, changed["batch_stats"]

    params = variables["params"]
    if lesson == "adversarial":
        slope = jax.grad(lambda x: loss(params, x)[0])(x)
        x = jnp.concatenate([x[::2], (x + radius * jnp.sign(slope))[1::2]])
        says = jnp.concatenate([says[::2], says[1::2]])
    gradients, stats = jax.grad(loss, has_aux=True)(params, x)
    steps, moments = _ADAM.update(gradients, moments)

    def moved(w: Any, step: Any, k: Any, live: Any) -> Any:
        return (w - k * rate * (step + decay * w)) * live

    params = jax.tree.map(moved, params, steps, keep, alive)
    return {"params": params, "batch_stats": stats}, moments
