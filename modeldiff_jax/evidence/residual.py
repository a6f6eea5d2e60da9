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
    shrinkage: float = SHRINKAGE,
) -> Float[np.ndarray, "m m"]:
    """Cosine similarities of models' residuals.

    Args:
      products: inner products of the models' vectors, about any origin.
      tasks: of each model; references of the same one give its mean, all where they are fewer than three.
      references: which models are known to be unrelated to those that are compared. At least two.
      shrinkage: see `SHRINKAGE`; large values leave the residuals as they are.
    Returns:
      (M, M), in [-1, 1]. Those of references are in-sample: smaller than a stranger's would be.
    """
    count = len(products)
    centring = np.eye(count)
    groups = {task: np.array([other == task for other in tasks]) for task in tasks}
    for mine in groups.values():
        own = references & mine
        own = own if own.sum() >= _FEWEST else references
        centring[np.ix_(mine, own)] -= 1 / own.sum()
    residual = centring @ products @ centring.T
    n = references.sum()
    variance, vectors = np.linalg.eigh(residual[np.ix_(references, references)] / n)
    kept = variance > 1e-9 * max(float(variance[-1]), 1e-300)
    variance, vectors = variance[kept], vectors[:, kept]
    floor = shrinkage * variance.sum() / n
    along = residual[:, references] @ vectors / np.sqrt(n * variance)  # coordinates along the references' directions
    residual = residual - (along * (variance / (variance + floor))) @ along.T
    norms = np.sqrt(np.maximum(np.diag(residual), 1e-300))
    return np.clip(residual / norms[:, None] / norms[None, :], -1, 1)
