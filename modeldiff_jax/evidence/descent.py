"""Who descends from whom among several models, by what they answer alone.

For each two models, clues are taken from their answers to probe pairs made on each of them: how alike they are in
several views, with and without what all models of their task share, and what tells a parent from a child and from a
sibling. Their weighted sum is the log-odds of one being the other's parent, and a forest is as likely as the product of
its edges' odds, so every edge has a probability among all forests.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax, softmax

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.arborescence import best_forest, probabilities
from modeldiff_jax.evidence.representations import VIEWS, as_logits

Answers = Sequence[Float[np.ndarray, "n _"]]

WEIGHTS: Mapping[str, float] = {
    "constant": -4.119,
    "same_task": 2.148,
    "logits": 1.056,
    "logits_apart": 4.545,
    "logits_central": 3.636,
    "probabilities": -0.9901,
    "probabilities_apart": 1.219,
    "probabilities_central": 0.5942,
    "ddv": -0.5968,
    "ddv_across": 1.532,
    "ddv_turned": -1.492,
    "ddv_apart": -2.689,
    "ddv_apart_across": 3.852,
    "ddv_apart_turned": 0.5005,
    "ddv_central": 1.638,
    "geometry": 0.378,
    "geometry_across": 1.899,
    "geometry_apart": -1.022,
    "geometry_apart_across": 3.922,
    "geometry_central": -1.199,
    "entropy": 1.626,
    "scale": 0.3156,
    "classes": 1.837,
    "moved": -0.6738,
    "moved_across": -0.008743,
    "moved_both": 0.5506,
}
"""Of each clue: under these the true forests of a zoo of 180 image classifiers are likeliest (`python -m
bench.modelreuse lineage FOLDER --fit`). Clues overlap, so a sign alone says little."""
_MOST = 0.999
"""Correlation above which two models count as copies: which of them was first does not show in it."""
_FOCUS = 4.0
"""How much more models near to both count than far ones, when two models' centrality is compared."""


@dataclass(frozen=True, slots=True)
class Kinship:
    """A forest, and how likely it is.

    Attributes:
      parents: of each model the number of its parent, -1 for none among the given.
      support: how likely each of these is, in [0, 1].
      edges: [i, j], how likely i is the parent of j.
    """

    parents: Int[np.ndarray, " m"]
    support: Float[np.ndarray, " m"]
    edges: Float[np.ndarray, "m m"]


def kinship(pairs: Sequence[tuple[Answers, Answers]], tasks: Sequence[Hashable]) -> Kinship:
    """The forest most of whose edges are expected to be right.

    Args:
      pairs, tasks: as in `clues`.
    """
    odds = log_odds(clues(pairs, tasks))
    edges, roots = probabilities(odds, np.zeros(len(odds)))
    parents = best_forest(edges, roots)
    return Kinship(parents, np.where(parents < 0, roots, edges[parents, np.arange(len(odds))]), edges)


def clues(pairs: Sequence[tuple[Answers, Answers]], tasks: Sequence[Hashable]) -> dict[str, Float[np.ndarray, "m m"]]:
    """What speaks for i being the parent of j, at [i, j], by name.

    Args:
      pairs: of each of M models, all models' answers to the seeds, and to the partners made on it: M arrays (N, C)
        each, logits or probabilities, C a model's own. Answers to seeds that are one object are looked at once.
      tasks: of each model; equal for models of one label space.
    """
    m = len(tasks)
    if not pairs or any(m != n for n in (len(pairs), *(len(side) for pair in pairs for side in pair))):
        got = f"{len(pairs)} sets of pairs, {m} tasks"
        raise InvalidInputError("Each model has a task, probe pairs, and answers to all models' pairs", got=got)
    names = list(dict.fromkeys(tasks))
    task = np.array([names.index(each) for each in tasks])
    same, other = task[:, None] == task[None], ~np.eye(m, dtype=bool)
    tables = {name: np.zeros((2, m, m)) for name in VIEWS}
    levels = np.zeros((3, m, m))
    made: dict[int, tuple[dict[str, np.ndarray], np.ndarray]] = {}
    for one, (seeds, partners) in enumerate(pairs):
        if id(seeds) not in made:
            made[id(seeds)] = _of_seeds(seeds, task)
        views, level = made[id(seeds)]
        ddv = np.stack([VIEWS["ddv"].features(x, y) for x, y in zip(seeds, partners, strict=True)])
        for name, table in {**views, "ddv": _alike(ddv, task)}.items():
            tables[name][:, one] = table[:, one]
        levels[:, one] = [*level, ddv.mean(axis=1)]
    found: dict[str, np.ndarray] = {"constant": np.ones((m, m)), "same_task": same * 1.0}
    for name, table in tables.items():
        comparable = other & same if VIEWS[name].same_labels else other
        for kind, values in zip(("", "_apart"), table, strict=True):
            near = np.where(comparable, np.arctanh(np.clip(values, -_MOST, _MOST)), 0)
            mean = (near + near.T) / 2
            found[f"{name}{kind}"] = mean * same
            if not VIEWS[name].same_labels:
                found[f"{name}{kind}_across"] = mean * ~same
            if name == "ddv":
                found[f"{name}{kind}_turned"] = near - near.T
            if kind:
                found[f"{name}_central"] = _central(mean, comparable)
    entropy, scale, moved = levels - np.diagonal(levels, axis1=1, axis2=2)[:, :, None]
    classes = np.array([answer.shape[1] for answer in pairs[0][0]])
    found["entropy"] = (entropy - entropy.T) * same
    found["scale"] = (scale - scale.T) * same
    found["classes"] = np.sign(classes[:, None] - classes[None]).astype(float)
    found["moved"], found["moved_across"] = (moved - moved.T) * same, (moved - moved.T) * ~same
    found["moved_both"] = moved + moved.T
    return found


def log_odds(clues: Mapping[str, Float[np.ndarray, "m m"]]) -> Float[np.ndarray, "m m"]:
    """Of i being the parent of j rather than nobody, at [i, j]."""
    total = np.zeros_like(clues["constant"])
    for name, weight in WEIGHTS.items():
        total += weight * clues[name]
    return total


def _of_seeds(
    answers: Answers, task: Int[np.ndarray, " m"]
) -> tuple[dict[str, Float[np.ndarray, "2 m m"]], Float[np.ndarray, "2 m"]]:
    """What seeds tell: `_alike` by view, 0 where a view cannot compare; and each model's mean entropy and scale."""
    logits = [as_logits(answer) for answer in answers]
    found = {"geometry": _alike(np.stack([VIEWS["geometry"].features(x, x) for x in logits]), task)}
    for each in np.unique(task):
        rows = np.flatnonzero(task == each)
        if len({logits[i].shape for i in rows}) > 1:
            raise InvalidInputError("Models of one task have as many outputs", got="different numbers")
        views = {
            "logits": np.stack([(logits[i] - logits[i].mean(axis=1, keepdims=True)).ravel() for i in rows]),
            "probabilities": np.stack([softmax(logits[i], axis=1).ravel() for i in rows]),
        }
        for name, vectors in views.items():
            table = found.setdefault(name, np.zeros((2, len(task), len(task))))
            table[:, rows[:, None], rows] = _alike(vectors, task[rows])
    return found, np.array([[_entropy(x).mean() for x in logits], [_scale(x).mean() for x in logits]])


def _alike(vectors: Float[np.ndarray, "m d"], task: Int[np.ndarray, " m"]) -> Float[np.ndarray, "2 m m"]:
    """Correlations, and the same after taking away what models of one task share, as far as there are many."""
    x = vectors - vectors.mean(axis=1, keepdims=True)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    products = (x @ x.T).astype(np.float64)
    alike = (task[:, None] == task[None]).astype(float)
    centring = np.eye(len(x)) - alike / (1 + alike.sum(axis=1, keepdims=True))
    apart = centring @ products @ centring.T
    size = np.sqrt(np.maximum(np.diag(apart), 1e-12))
    return np.stack([products, apart / size / size[:, None]])


def _central(near: Float[np.ndarray, "m m"], comparable: np.ndarray) -> Float[np.ndarray, "m m"]:
    """How much nearer i is than j to those near both: a parent is nearer to its children than they to one another."""
    found = np.zeros_like(near)
    for i in range(len(near)):
        both = comparable[i][None] & comparable
        weight = np.exp(_FOCUS * np.minimum(near[i][None], near)) * both
        gain = np.sum(weight * (near[i][None] - near), axis=1) / (1 + weight.sum(axis=1))
        found[i] = np.where(comparable[i], gain, 0)
    return found


def _entropy(logits: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
    """Of the probabilities, as a share of the greatest."""
    logs = log_softmax(logits, axis=1)
    return -np.sum(np.exp(logs) * logs, axis=1) / np.log(max(2, logits.shape[1]))


def _scale(logits: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
    """Logarithm of the logits' deviation."""
    return np.log(logits.std(axis=1) + 1e-6)
