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


class Residuals:
    """What sets models apart, seen against references.

    Args:
      products: inner products of the models' vectors, about any origin.
      tasks: of each model; references of the same one give its mean, all where they are fewer than three.
      references: which models are known to be unrelated to those of interest. At least two.
      shrinkage: see `SHRINKAGE`; large values leave the residuals as they are.
    """

    def __init__(
        self,
        products: Float[np.ndarray, "m m"],
        tasks: Sequence[Hashable],
        references: Bool[np.ndarray, " m"],
        shrinkage: float = SHRINKAGE,
    ) -> None:
        n = int(references.sum())
        centring, size = np.eye(len(products)), np.empty(len(products))
        names = list(dict.fromkeys(tasks))
        self._task = np.array([names.index(name) for name in tasks])
        for each in range(len(names)):
            mine = self._task == each
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
        self._inner = inner - (along * (variance / (variance + floor))) @ along.T
        # what a reference adds to the scatter, as a share of the ridge, and how far it draws its task's mean
        self._weight = np.where(references, size / np.maximum(size - 1, 1) / (n * max(float(floor), 1e-300)), 0)
        self._draws = np.where(references, 1 / np.maximum(size - 1, 1), 0)

    def similarity(self, one: int) -> Float[np.ndarray, " m"]:
        """Cosine similarities of one model's residual, no reference's, with all models', in [-1, 1].

        A reference is left out of the references while it is compared itself, so that its similarity is what a
        stranger's would be. This takes no more work than leaving it in (the formula of Sherman and Morrison).
        """
        own, cross, other = self._inner[one, one], self._inner[one], np.diag(self._inner)
        draws = np.where(self._task == self._task[one], self._draws, 0)
        left = np.maximum(1 - self._weight * other, 1e-6)
        own = own + (self._weight * cross**2 + 2 * draws * cross + draws**2 * other) / left
        cross, other = (cross + draws * other) / left, other / left
        return np.clip(cross / np.sqrt(np.maximum(own * other, 1e-300)), -1, 1)
