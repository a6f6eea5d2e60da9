"""Who descends from whom among several models, by what they answer alone.

For each two models, clues are taken from their answers to probe pairs made on each of them: how alike they are in
several views, with and without what all models of their task share, and what tells a parent from a child and from a
sibling. Their weighted sum is the log-odds of one being the other's parent. A forest is as likely as the product of its
edges' odds, so every edge has a probability among all forests, which is averaged over resampled probes.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax, softmax

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.forest import best_forest, probabilities
from modeldiff_jax.evidence.views import VIEWS, as_logits

Answers = Sequence[Float[np.ndarray, "n _"]]

WEIGHTS: Mapping[str, float] = {
    "constant": -3.549,
    "same_task": 2.148,
    "logits": 0.5477,
    "logits_apart": 4.113,
    "logits_central": 2.871,
    "probabilities": -0.7527,
    "probabilities_apart": 1.057,
    "probabilities_central": 0.7006,
    "ddv": -0.708,
    "ddv_across": 1.989,
    "ddv_turned": -1.128,
    "ddv_apart": -2.772,
    "ddv_apart_across": 1.763,
    "ddv_apart_turned": 0.2268,
    "ddv_central": 1.422,
    "geometry": 0.5226,
    "geometry_across": 1.433,
    "geometry_apart": -0.4784,
    "geometry_apart_across": 3.698,
    "geometry_central": -1.246,
    "entropy": 0.6692,
    "scale": 0.1162,
    "classes": 1.787,
    "moved": -0.6206,
    "moved_across": 0.02839,
    "moved_both": 0.6069,
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


class Behaviours:
    """What M models answer to the probe pairs of each of them.

    Args:
      pairs: of each model, all models' answers to the seeds, and to the partners made on it: M arrays (N, C) each,
        logits or probabilities, C a model's own. Answers that are one object for several models are looked at once.
      tasks: of each model; equal for models of one label space.
    """

    def __init__(self, pairs: Sequence[tuple[Answers, Answers]], tasks: Sequence[Hashable]) -> None:
        if not pairs or any(len(tasks) != n for n in (len(pairs), *(len(side) for pair in pairs for side in pair))):
            got = f"{len(pairs)} sets of pairs, {len(tasks)} tasks"
            raise InvalidInputError("Each model has a task, probe pairs, and answers to all models' pairs", got=got)
        names = list(dict.fromkeys(tasks))
        self.task = np.array([names.index(task) for task in tasks])
        self.classes = np.array([answer.shape[1] for answer in pairs[0][0]])
        made = {key: _Seeds(seeds, self.task) for key, seeds in {id(seeds): seeds for seeds, _ in pairs}.items()}
        self._seeds = [made[id(seeds)] for seeds, _ in pairs]
        reacted: dict[int, np.ndarray] = {}
        for seeds, partners in pairs:
            if id(partners) not in reacted:
                both = zip(seeds, partners, strict=True)
                reacted[id(partners)] = np.stack([VIEWS["ddv"].features(x, y) for x, y in both])
        self._ddv = [reacted[id(partners)] for _, partners in pairs]
        self._kept = pairs  # as long as they live no other object takes an id

    def __len__(self) -> int:
        return len(self.task)

    def resampled(self, rng: np.random.Generator) -> list[Float[np.ndarray, " n"]]:
        """Random weights of each model's pairs, of mean 1 (Rubin's Bayesian bootstrap)."""
        drawn = {id(seeds): rng.dirichlet(np.ones(seeds.n)) * seeds.n for seeds in dict.fromkeys(self._seeds)}
        return [drawn[id(seeds)] for seeds in self._seeds]

    def clues(self, weights: Sequence[Float[np.ndarray, " n"]] | None = None) -> dict[str, Float[np.ndarray, "m m"]]:
        """What speaks for i being the parent of j, at [i, j], by name.

        Args:
          weights: of each model's pairs; None for 1 each.
        """
        weights = [np.ones(seeds.n) for seeds in self._seeds] if weights is None else weights
        m = len(self)
        same = self.task[:, None] == self.task[None]
        found: dict[str, np.ndarray] = {"constant": np.ones((m, m)), "same_task": same * 1.0}
        tables = {name: np.zeros((2, m, m)) for name in VIEWS}
        levels = np.zeros((3, m, m))
        kept: dict[tuple[int, str], np.ndarray] = {}
        for one in range(m):
            seeds, ddv, weight = self._seeds[one], self._ddv[one], weights[one]
            if (key := (id(ddv), "ddv")) not in kept:
                kept[key] = _alike(ddv, weight, self.task)
            if (key := (id(seeds), "seeds")) not in kept:
                for name, table in seeds.alike(weight).items():
                    kept[id(seeds), name] = table
                kept[key] = seeds.levels @ (weight / weight.sum())
            for name, table in tables.items():
                table[:, one] = kept[id(ddv) if name == "ddv" else id(seeds), name][:, one]
            levels[:2, one] = kept[id(seeds), "seeds"]
            levels[2, one] = ddv @ (weight / weight.sum())
        for name, table in tables.items():
            comparable = (same if VIEWS[name].same_labels else np.ones((m, m), bool)) & ~np.eye(m, dtype=bool)
            for kind, values in zip(("", "_apart"), table, strict=True):
                near = np.where(comparable, np.arctanh(np.clip(values, -_MOST, _MOST)), 0)
                mean = (near + near.T) / 2
                for where, part in (("", same), ("_across", ~same)) if not VIEWS[name].same_labels else (("", same),):
                    found[f"{name}{kind}{where}"] = mean * part
                if name == "ddv":
                    found[f"{name}{kind}_turned"] = near - near.T
                if kind:
                    found[f"{name}_central"] = _central(mean, comparable)
        entropy, scale, moved = levels - np.diagonal(levels, axis1=1, axis2=2)[:, :, None]
        found["entropy"] = (entropy - entropy.T) * same
        found["scale"] = (scale - scale.T) * same
        found["classes"] = np.sign(self.classes[:, None] - self.classes[None]).astype(float)
        found["moved"], found["moved_across"] = (moved - moved.T) * same, (moved - moved.T) * ~same
        found["moved_both"] = moved + moved.T
        return found


def kinship(behaviours: Behaviours, *, n_resamples: int = 50, key: int = 0) -> Kinship:
    """The forest most of whose edges are expected to be right.

    Args:
      behaviours: of all models.
      n_resamples: of the probe pairs; probabilities are averaged over them.
      key: of the resampling.
    """
    if n_resamples < 1:
        raise InvalidInputError("`n_resamples` is at least 1", got=str(n_resamples), where="kinship")
    m, rng = len(behaviours), np.random.default_rng(key)
    edges, roots = np.zeros((m, m)), np.zeros(m)
    for _ in range(n_resamples):
        odds = log_odds(behaviours.clues(behaviours.resampled(rng)))
        some, none = probabilities(odds, np.zeros(m))
        edges, roots = edges + some / n_resamples, roots + none / n_resamples
    parents = best_forest(edges, roots)
    support = np.where(parents < 0, roots, edges[parents, np.arange(m)])
    return Kinship(parents, support, edges)


def log_odds(clues: Mapping[str, Float[np.ndarray, "m m"]]) -> Float[np.ndarray, "m m"]:
    """Of i being the parent of j rather than nobody, at [i, j]."""
    total = np.zeros_like(clues["constant"])
    for name, weight in WEIGHTS.items():
        total += weight * clues[name]
    return total


class _Seeds:
    """All models' answers to one set of seeds, turned into vectors once."""

    def __init__(self, answers: Answers, task: Int[np.ndarray, " m"]) -> None:
        logits = [as_logits(answer) for answer in answers]
        self.n, self._task = len(logits[0]), task
        self._geometry = np.stack([VIEWS["geometry"].features(x, x) for x in logits]).astype(np.float32)
        self._pairs = np.triu_indices(self.n, 1)
        self._groups = []
        for each in np.unique(task):
            rows = np.flatnonzero(task == each)
            if len({logits[i].shape for i in rows}) > 1:
                raise InvalidInputError("Models of one task have as many outputs", got="different numbers")
            views = {
                "logits": np.stack([(logits[i] - logits[i].mean(axis=1, keepdims=True)).ravel() for i in rows]),
                "probabilities": np.stack([softmax(logits[i], axis=1).ravel() for i in rows]),
            }
            self._groups.append((rows, logits[rows[0]].shape[1], views))
        self.levels = np.stack([[_entropy(x) for x in logits], [_scale(x) for x in logits]])

    def alike(self, weight: Float[np.ndarray, " n"]) -> dict[str, Float[np.ndarray, "2 m m"]]:
        """Correlations of all two models in each view; 0 where it cannot compare them."""
        m = len(self._task)
        i, j = self._pairs
        found = {"geometry": _alike(self._geometry, weight[i] * weight[j], self._task)}
        for rows, width, views in self._groups:
            for name, vectors in views.items():
                table = found.setdefault(name, np.zeros((2, m, m)))
                table[:, rows[:, None], rows] = _alike(vectors, np.repeat(weight, width), self._task[rows])
        return found


def _alike(
    vectors: Float[np.ndarray, "m d"], weight: Float[np.ndarray, " d"], task: Int[np.ndarray, " m"]
) -> Float[np.ndarray, "2 m m"]:
    """Correlations, and the same after taking away what models of one task share, as far as there are many."""
    x = vectors - (vectors @ (weight / weight.sum()))[:, None]
    x = x * np.sqrt(weight / weight.sum())
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
