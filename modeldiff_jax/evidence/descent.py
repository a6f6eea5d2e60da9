"""Descent among several models: a probability for each pair that one is the other's parent, from reactions alone.

Features of each pair are computed from both models' reactions to probe pairs made on each of them: similarity in
several representations, with and without what all models of their task share, and differences that tell a parent from a
child and from a sibling. Their weighted sum is the log-odds of one being the other's parent, and a forest's probability
is proportional to the product of its edges' odds, so every edge has a probability among all forests.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax, softmax

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.arborescence import edge_probabilities, maximum_forest
from modeldiff_jax.evidence.representations import REPRESENTATIONS, as_logits

ReactionsOfModels = Sequence[Float[np.ndarray, "n _"]]

EDGE_WEIGHTS: Mapping[str, float] = {
    "constant": -4.119,
    "same_task": 2.148,
    "logits": 1.056,
    "logits_centred": 4.545,
    "logits_centrality": 3.636,
    "probabilities": -0.9901,
    "probabilities_centred": 1.219,
    "probabilities_centrality": 0.5942,
    "ddv": -0.5968,
    "ddv_cross_task": 1.532,
    "ddv_asymmetry": -1.492,
    "ddv_centred": -2.689,
    "ddv_centred_cross_task": 3.852,
    "ddv_centred_asymmetry": 0.5005,
    "ddv_centrality": 1.638,
    "geometry": 0.378,
    "geometry_cross_task": 1.899,
    "geometry_centred": -1.022,
    "geometry_centred_cross_task": 3.922,
    "geometry_centrality": -1.199,
    "entropy": 1.626,
    "scale": 0.3156,
    "classes": 1.837,
    "ddv_level": -0.6738,
    "ddv_level_cross_task": -0.008743,
    "ddv_level_sum": 0.5506,
}
"""Weight of each edge feature: the maximum-likelihood estimate on the true forests of a zoo of 180 image classifiers
(`python -m bench.modelreuse lineage FOLDER --fit`). Features are correlated, so a sign alone says little."""
_MOST = 0.999
"""Correlation above which two models count as copies, between which similarity gives no direction."""
_FOCUS = 4.0
"""Exponential weight of models similar to both, when two models' centrality is compared."""


@dataclass(frozen=True, slots=True)
class Descent:
    """A directed forest over M models, with probabilities.

    Attributes:
      parents: of each model the index of its parent, -1 for none among the given.
      support: probability of each of these, in [0, 1].
      edges: at [i, j] the probability that i is the parent of j.
    """

    parents: Int[np.ndarray, " m"]
    support: Float[np.ndarray, " m"]
    edges: Float[np.ndarray, "m m"]


def infer_descent(pairs: Sequence[tuple[ReactionsOfModels, ReactionsOfModels]], tasks: Sequence[Hashable]) -> Descent:
    """Returns the forest with the greatest expected number of right edges.

    Args:
      pairs, tasks: as in `edge_features`.
    """
    odds = log_odds(edge_features(pairs, tasks))
    edges, roots = edge_probabilities(odds, np.zeros(len(odds)))
    parents = maximum_forest(edges, roots)
    return Descent(parents, np.where(parents < 0, roots, edges[parents, np.arange(len(odds))]), edges)


def edge_features(
    pairs: Sequence[tuple[ReactionsOfModels, ReactionsOfModels]], tasks: Sequence[Hashable]
) -> dict[str, Float[np.ndarray, "m m"]]:
    """Returns features of i as the parent of j, at [i, j], by name.

    Args:
      pairs: for each of M models, all models' reactions to the seeds, and to the partners made on it: M arrays (N, C)
        each, logits or probabilities, C a model's own. Reactions to seeds that are one object are processed once.
      tasks: of each model; equal for models of one label space.
    """
    m = len(tasks)
    if not pairs or any(m != n for n in (len(pairs), *(len(side) for pair in pairs for side in pair))):
        got = f"{len(pairs)} sets of pairs, {m} tasks"
        raise InvalidInputError("Each model has a task, probe pairs, and reactions to all models' pairs", got=got)
    names = list(dict.fromkeys(tasks))
    task = np.array([names.index(each) for each in tasks])
    same, other = task[:, None] == task[None], ~np.eye(m, dtype=bool)
    tables = {name: np.zeros((2, m, m)) for name in REPRESENTATIONS}
    levels = np.zeros((3, m, m))
    of_seeds: dict[int, tuple[dict[str, np.ndarray], np.ndarray]] = {}
    for one, (seeds, partners) in enumerate(pairs):
        if id(seeds) not in of_seeds:
            of_seeds[id(seeds)] = _seed_similarities(seeds, task)
        similarities, level = of_seeds[id(seeds)]
        ddv = np.stack([REPRESENTATIONS["ddv"].vector(x, y) for x, y in zip(seeds, partners, strict=True)])
        for name, table in {**similarities, "ddv": _correlations(ddv, task)}.items():
            tables[name][:, one] = table[:, one]
        levels[:, one] = [*level, ddv.mean(axis=1)]
    found: dict[str, np.ndarray] = {"constant": np.ones((m, m)), "same_task": same * 1.0}
    for name, table in tables.items():
        comparable = other & same if REPRESENTATIONS[name].same_labels else other
        for kind, values in zip(("", "_centred"), table, strict=True):
            near = np.where(comparable, np.arctanh(np.clip(values, -_MOST, _MOST)), 0)
            mean = (near + near.T) / 2
            found[f"{name}{kind}"] = mean * same
            if not REPRESENTATIONS[name].same_labels:
                found[f"{name}{kind}_cross_task"] = mean * ~same
            if name == "ddv":
                found[f"{name}{kind}_asymmetry"] = near - near.T
            if kind:
                found[f"{name}_centrality"] = _centrality(mean, comparable)
    entropy, scale, moved = levels - np.diagonal(levels, axis1=1, axis2=2)[:, :, None]
    classes = np.array([reaction.shape[1] for reaction in pairs[0][0]])
    found["entropy"] = (entropy - entropy.T) * same
    found["scale"] = (scale - scale.T) * same
    found["classes"] = np.sign(classes[:, None] - classes[None]).astype(float)
    found["ddv_level"], found["ddv_level_cross_task"] = (moved - moved.T) * same, (moved - moved.T) * ~same
    found["ddv_level_sum"] = moved + moved.T
    return found


def log_odds(features: Mapping[str, Float[np.ndarray, "m m"]]) -> Float[np.ndarray, "m m"]:
    """Returns the log-odds of i being the parent of j rather than no model, at [i, j]."""
    total = np.zeros_like(features["constant"])
    for name, weight in EDGE_WEIGHTS.items():
        total += weight * features[name]
    return total


def _seed_similarities(
    reactions: ReactionsOfModels, task: Int[np.ndarray, " m"]
) -> tuple[dict[str, Float[np.ndarray, "2 m m"]], Float[np.ndarray, "2 m"]]:
    """Returns `_correlations` by representation, 0 where one cannot compare, and models' mean entropy and scale."""
    logits = [as_logits(reaction) for reaction in reactions]
    found = {"geometry": _correlations(np.stack([REPRESENTATIONS["geometry"].vector(x, x) for x in logits]), task)}
    for each in np.unique(task):
        rows = np.flatnonzero(task == each)
        if len({logits[i].shape for i in rows}) > 1:
            raise InvalidInputError("Models of one task have as many outputs", got="different numbers")
        vectors_by_name = {
            "logits": np.stack([(logits[i] - logits[i].mean(axis=1, keepdims=True)).ravel() for i in rows]),
            "probabilities": np.stack([softmax(logits[i], axis=1).ravel() for i in rows]),
        }
        for name, vectors in vectors_by_name.items():
            table = found.setdefault(name, np.zeros((2, len(task), len(task))))
            table[:, rows[:, None], rows] = _correlations(vectors, task[rows])
    return found, np.array([[_entropy(x).mean() for x in logits], [_scale(x).mean() for x in logits]])


def _correlations(vectors: Float[np.ndarray, "m d"], task: Int[np.ndarray, " m"]) -> Float[np.ndarray, "2 m m"]:
    """Returns correlations of the vectors, and the same after subtracting the (shrunk) mean of each task."""
    x = vectors - vectors.mean(axis=1, keepdims=True)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    products = (x @ x.T).astype(np.float64)
    same = (task[:, None] == task[None]).astype(float)
    centring = np.eye(len(x)) - same / (1 + same.sum(axis=1, keepdims=True))
    centred = centring @ products @ centring.T
    size = np.sqrt(np.maximum(np.diag(centred), 1e-12))
    return np.stack([products, centred / size / size[:, None]])


def _centrality(near: Float[np.ndarray, "m m"], comparable: np.ndarray) -> Float[np.ndarray, "m m"]:
    """Returns how much more similar i is than j to models similar to both: a parent is closer to its children."""
    found = np.zeros_like(near)
    for i in range(len(near)):
        both = comparable[i][None] & comparable
        weight = np.exp(_FOCUS * np.minimum(near[i][None], near)) * both
        gain = np.sum(weight * (near[i][None] - near), axis=1) / (1 + weight.sum(axis=1))
        found[i] = np.where(comparable[i], gain, 0)
    return found


def _entropy(logits: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
    """Returns the entropy of the probabilities, as a share of the greatest possible."""
    logs = log_softmax(logits, axis=1)
    return -np.sum(np.exp(logs) * logs, axis=1) / np.log(max(2, logits.shape[1]))


def _scale(logits: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
    """Returns the logarithm of the logits' standard deviation."""
    return np.log(logits.std(axis=1) + 1e-6)
