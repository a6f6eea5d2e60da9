"""Similarity of what sets two models apart from all others.

Unrelated models of one task react alike, because the task is the same. What they share says nothing of descent, so it
is taken away: from each model the mean of unrelated models of its task, then the directions in which unrelated models
differ from one another anyway, by how much they do (within-class covariance normalisation as in speaker verification,
Hatch et al., Interspeech 2006). All of it needs inner products of the models' vectors only, so that it costs the same
for vectors of any length.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool, Float

SHRINKAGE = 1.0
"""Share of the mean variance of unrelated models that is added to each direction's own."""
_FEWEST = 3
"""References of a task with which it has a mean of its own."""


def gram(features: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m m"]:
    """Inner products of models' vectors about their mean, in float64."""
    x = np.asarray(features, np.float64)
    x = x - x.mean(axis=0)
    return x @ x.T


def residual_similarity(
    products: Float[np.ndarray, "m m"],
    tasks: Sequence[Hashable],
    references: Bool[np.ndarray, " m"],
    one: int,
    shrinkage: float = SHRINKAGE,
) -> Float[np.ndarray, " m"]:
    """Cosine similarities of one model's residual with all models'.

    A reference is left out of the references while it is compared itself, so that its similarity is what a stranger's
    would be. This takes no more work than leaving it in (the formula of Sherman and Morrison).

    Args:
      products: inner products of the models' vectors, about any origin.
      tasks: of each model; references of the same one give its mean, all where they are fewer than three.
      references: which models are known to be unrelated to this one. At least two.
      one: the model's number.
      shrinkage: see `SHRINKAGE`; large values leave the residuals as they are.
    Returns:
      (M,), in [-1, 1].
    """
    n = int(references.sum())
    centring, size = np.eye(len(products)), np.empty(len(products))
    task = np.array([list(dict.fromkeys(tasks)).index(name) for name in tasks])
    for each in np.unique(task):
        mine = task == each
        own = references & mine
        own = own if own.sum() >= _FEWEST else references
        centring[np.ix_(mine, own)] -= 1 / own.sum()
        size[mine] = own.sum()
    inner = centring @ products @ centring.T
    variance, vectors = np.linalg.eigh(inner[np.ix_(references, references)] / n)
    kept = variance > 1e-9 * max(float(variance[-1]), 1e-300)
    variance, vectors = variance[kept], vectors[:, kept]
    floor = shrinkage * variance.sum() / n
    along = inner[:, references] @ vectors / np.sqrt(n * variance)  # coordinates along the references' directions
    inner = inner - (along * (variance / (variance + floor))) @ along.T
    own, cross, other = inner[one, one], inner[one], np.diag(inner)

    # without a reference the others' mean moves away from it, and its direction is one less in which they differ
    away = np.where(references & (task == task[one]), 1 / np.maximum(size - 1, 1), 0)
    less = np.where(references, size / np.maximum(size - 1, 1) / (n * max(float(floor), 1e-300)), 0)
    kept_back = np.maximum(1 - less * other, 1e-6)
    own = own + less * cross**2 / kept_back + (2 * away * cross + away**2 * other) / kept_back
    cross, other = (cross + away * other) / kept_back, other / kept_back
    return np.clip(cross / np.sqrt(np.maximum(own * other, 1e-300)), -1, 1)
