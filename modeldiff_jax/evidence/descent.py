"""Descent among several models: for each pair of models the probability that one is the parent of the other.

Features of each pair are computed from their reactions to probe pairs made on each of them: similarity in several
representations, with and without what all models of their label space share, and differences that distinguish a parent
from a child and from a sibling. Their weighted sum is the log-odds of the edge from one to the other, and a forest's
probability is proportional to the product of its edges' odds, so every edge has a probability among all forests.
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
    "same_label_space": 2.148,
    "logits": 1.056,
    "logits_centred": 4.545,
    "logits_centrality": 3.636,
    "probabilities": -0.9901,
    "probabilities_centred": 1.219,
    "probabilities_centrality": 0.5942,
    "ddv": -0.5968,
    "ddv_other_label_space": 1.532,
    "ddv_asymmetry": -1.492,
    "ddv_centred": -2.689,
    "ddv_centred_other_label_space": 3.852,
    "ddv_centred_asymmetry": 0.5005,
    "ddv_centrality": 1.638,
    "geometry": 0.378,
    "geometry_other_label_space": 1.899,
    "geometry_centred": -1.022,
    "geometry_centred_other_label_space": 3.922,
    "geometry_centrality": -1.199,
    "entropy": 1.626,
    "scale": 0.3156,
    "classes": 1.837,
    "ddv_level": -0.6738,
    "ddv_level_other_label_space": -0.008743,
    "ddv_level_sum": 0.5506,
}
"""Weight of each edge feature: the maximum-likelihood estimate on the true forests of a zoo of 180 image classifiers
(`python -m bench.modelreuse lineage FOLDER --fit`). Features are correlated, so a weight's sign alone means little."""
_MOST = 0.999
"""Correlation above which two models count as copies: among copies, similarity does not show which is the parent."""
_FOCUS = 4.0
"""Exponent that weights third models by their similarity to both, when the centrality of two models is compared."""


@dataclass(frozen=True, slots=True)
class Descent:
    """A directed forest over M models, with probabilities.

    Attributes:
      parents: index of each model's parent, -1 where it has none among the models given.
      support: probability of each entry of `parents`, in [0, 1].
      edges: at [i, j] the probability that i is the parent of j.
    """

    parents: Int[np.ndarray, " m"]
    support: Float[np.ndarray, " m"]
    edges: Float[np.ndarray, "m m"]


def infer_descent(
    pairs: Sequence[tuple[ReactionsOfModels, ReactionsOfModels]], label_spaces: Sequence[Hashable]
) -> Descent:
    """Returns the forest with the greatest expected number of right edges.

    Args:
      pairs, label_spaces: as in `edge_features`.
    """
    odds = log_odds(edge_features(pairs, label_spaces))
    edges, roots = edge_probabilities(odds, np.zeros(len(odds)))
    parents = maximum_forest(edges, roots)
    return Descent(parents, np.where(parents < 0, roots, edges[parents, np.arange(len(odds))]), edges)


def edge_features(
    pairs: Sequence[tuple[ReactionsOfModels, ReactionsOfModels]], label_spaces: Sequence[Hashable]
) -> dict[str, Float[np.ndarray, "m m"]]:
    """Returns features of i as the parent of j, at [i, j], by name.

    Args:
      pairs: for each of M models, all models' reactions to the seeds, and to the partners made on that model: M arrays
        (N, C) each, logits or probabilities; C may differ between models. Reactions to seeds that are the same object
        are processed once.
      label_spaces: one for each model; equal where outputs mean the same.
    """
    m = len(label_spaces)
    if not pairs or any(m != n for n in (len(pairs), *(len(side) for pair in pairs for side in pair))):
        got = f"{len(pairs)} sets of pairs, {m} label spaces"
        rule = "Each model has a label space, probe pairs, and reactions to all models' pairs"
        raise InvalidInputError(rule, got=got)
    distinct = list(dict.fromkeys(label_spaces))
    space_index = np.array([distinct.index(space) for space in label_spaces])
    same, off_diagonal = space_index[:, None] == space_index[None], ~np.eye(m, dtype=bool)
    tables = {name: np.zeros((2, m, m)) for name in REPRESENTATIONS}
    levels = np.zeros((3, m, m))
    seed_results: dict[int, tuple[dict[str, np.ndarray], np.ndarray]] = {}
    for maker, (seeds, partners) in enumerate(pairs):
        if id(seeds) not in seed_results:
            seed_results[id(seeds)] = _seed_similarities(seeds, space_index)
        similarities, level = seed_results[id(seeds)]
        ddv = np.stack([REPRESENTATIONS["ddv"].vector(x, y) for x, y in zip(seeds, partners, strict=True)])
        for name, table in {**similarities, "ddv": _correlations(ddv, space_index)}.items():
            tables[name][:, maker] = table[:, maker]
        levels[:, maker] = [*level, ddv.mean(axis=1)]
    features: dict[str, np.ndarray] = {"constant": np.ones((m, m)), "same_label_space": same * 1.0}
    for name, table in tables.items():
        comparable = off_diagonal & same if REPRESENTATIONS[name].same_label_space else off_diagonal
        for kind, values in zip(("", "_centred"), table, strict=True):
            similarity = np.where(comparable, np.arctanh(np.clip(values, -_MOST, _MOST)), 0)
            mean = (similarity + similarity.T) / 2
            features[f"{name}{kind}"] = mean * same
            if not REPRESENTATIONS[name].same_label_space:
                features[f"{name}{kind}_other_label_space"] = mean * ~same
            if name == "ddv":
                features[f"{name}{kind}_asymmetry"] = similarity - similarity.T
            if kind:
                features[f"{name}_centrality"] = _centrality(mean, comparable)
    entropy, scale, ddv_level = levels - np.diagonal(levels, axis1=1, axis2=2)[:, :, None]
    classes = np.array([reaction.shape[1] for reaction in pairs[0][0]])
    features["entropy"] = (entropy - entropy.T) * same
    features["scale"] = (scale - scale.T) * same
    features["classes"] = np.sign(classes[:, None] - classes[None]).astype(float)
    features["ddv_level"] = (ddv_level - ddv_level.T) * same
    features["ddv_level_other_label_space"] = (ddv_level - ddv_level.T) * ~same
    features["ddv_level_sum"] = ddv_level + ddv_level.T
    return features


def log_odds(features: Mapping[str, Float[np.ndarray, "m m"]]) -> Float[np.ndarray, "m m"]:
    """Returns the log-odds of i being the parent of j rather than no model, at [i, j]."""
    total = np.zeros_like(features["constant"])
    for name, weight in EDGE_WEIGHTS.items():
        total += weight * features[name]
    return total


def _seed_similarities(
    reactions: ReactionsOfModels, space_index: Int[np.ndarray, " m"]
) -> tuple[dict[str, Float[np.ndarray, "2 m m"]], Float[np.ndarray, "2 m"]]:
    """Returns `_correlations` by representation, 0 where one cannot compare, and models' mean entropy and scale."""
    logits = [as_logits(reaction) for reaction in reactions]
    geometry = np.stack([REPRESENTATIONS["geometry"].vector(x, x) for x in logits])
    similarities = {"geometry": _correlations(geometry, space_index)}
    for space in np.unique(space_index):
        rows = np.flatnonzero(space_index == space)
        if len({logits[i].shape for i in rows}) > 1:
            raise InvalidInputError("Models of one label space have equally many outputs", got="different numbers")
        vectors_by_name = {
            "logits": np.stack([(logits[i] - logits[i].mean(axis=1, keepdims=True)).ravel() for i in rows]),
            "probabilities": np.stack([softmax(logits[i], axis=1).ravel() for i in rows]),
        }
        for name, vectors in vectors_by_name.items():
            table = similarities.setdefault(name, np.zeros((2, len(reactions), len(reactions))))
            table[:, rows[:, None], rows] = _correlations(vectors, space_index[rows])
    return similarities, np.array([[_entropy(x).mean() for x in logits], [_scale(x).mean() for x in logits]])


def _correlations(vectors: Float[np.ndarray, "m d"], space_index: Int[np.ndarray, " m"]) -> Float[np.ndarray, "2 m m"]:
    """Returns correlations of the vectors, and the same after subtracting the (shrunk) mean of each label space."""
    x = vectors - vectors.mean(axis=1, keepdims=True)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    products = (x @ x.T).astype(np.float64)
    same = (space_index[:, None] == space_index[None]).astype(float)
    centring = np.eye(len(x)) - same / (1 + same.sum(axis=1, keepdims=True))
    centred = centring @ products @ centring.T
    size = np.sqrt(np.maximum(np.diag(centred), 1e-12))
    return np.stack([products, centred / size / size[:, None]])


def _centrality(similarity: Float[np.ndarray, "m m"], comparable: np.ndarray) -> Float[np.ndarray, "m m"]:
    """Returns how much more similar i is than j to models similar to both: a parent is closer to its children."""
    centrality = np.zeros_like(similarity)
    for i, row in enumerate(similarity):
        both = comparable[i][None] & comparable
        weight = np.exp(_FOCUS * np.minimum(row[None], similarity)) * both
        gain = np.sum(weight * (row[None] - similarity), axis=1) / (1 + weight.sum(axis=1))
        centrality[i] = np.where(comparable[i], gain, 0)
    return centrality


def _entropy(logits: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
    """Returns the entropy of the probabilities, as a share of the greatest possible."""
    logs = log_softmax(logits, axis=1)
    return -np.sum(np.exp(logs) * logs, axis=1) / np.log(max(2, logits.shape[1]))


def _scale(logits: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
    """Returns the logarithm of the logits' standard deviation."""
    return np.log(logits.std(axis=1) + 1e-6)
