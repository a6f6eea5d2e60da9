"""Within-class covariance normalisation: similarity of what sets two models apart from all others.

Unrelated models of one task react alike, because the task is the same. What they share is no evidence of descent, so it
is removed: from each model the mean of unrelated models of its task, then the directions in which unrelated models
differ from one another anyway, by how much they do (as in speaker verification, Hatch et al., Interspeech 2006). All of
it needs inner products of the models' vectors only, so it costs the same for vectors of any length.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import cholesky, solve_triangular

SHRINKAGE = 1.0
"""Share of the mean variance of unrelated models that is added to each direction's own."""
_FEWEST = 3
"""References of a task with which it has a mean of its own."""


def gram(vectors: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m m"]:
    """Returns inner products of models' vectors about their mean, in float64."""
    x = np.asarray(vectors, np.float64)
    x = x - x.mean(axis=0)
    return x @ x.T


class WithinClassWhitening:
    """Whitens models' vectors by the covariance of unrelated models within each task.

    Args:
      products: inner products of the models' vectors, about any origin.
      tasks: of each model; references of the same one give its mean, all where they are fewer than three.
      references: which models are known to be unrelated to the targets. At least two.
      shrinkage: see `SHRINKAGE`; large values leave the centred vectors as they are.
    """

    def __init__(
        self,
        products: Float[np.ndarray, "m m"],
        tasks: Sequence[Hashable],
        references: Bool[np.ndarray, " m"],
        shrinkage: float = SHRINKAGE,
    ) -> None:
        n = int(references.sum())
        names = list(dict.fromkeys(tasks))
        self._task = np.array([names.index(name) for name in tasks])
        size, inner = np.empty(len(products)), np.array(products)
        groups = [self._task == each for each in range(len(names))]
        pools = [references & mine if (references & mine).sum() >= _FEWEST else references for mine in groups]
        for mine, own in zip(groups, pools, strict=True):
            inner[mine] -= products[own].mean(axis=0)
            size[mine] = own.sum()
        means = [inner[:, own].mean(axis=1, keepdims=True) for own in pools]
        for mine, mean in zip(groups, means, strict=True):
            inner[:, mine] -= mean
        floor = shrinkage * float(np.trace(inner[np.ix_(references, references)])) / n**2
        floor = max(floor, 1e-14 * float(np.abs(products).max()), 1e-300)  # references that are all the same
        # what references explain of each model: inner products with them over their scatter and the ridge
        scatter = inner[np.ix_(references, references)] + n * floor * np.eye(n)
        self._along = solve_triangular(
            cholesky(scatter, lower=True, check_finite=False), inner[references], lower=True, check_finite=False
        )
        self._inner = inner
        self._norms = np.maximum(np.diag(inner) - np.sum(self._along**2, axis=0), 0)
        # what a reference adds to the scatter, as a share of the ridge, and how far it draws its task's mean
        self._weight = np.where(references, size / np.maximum(size - 1, 1) / (n * floor), 0)
        self._draws = np.where(references, 1 / np.maximum(size - 1, 1), 0)

    def similarities(self, targets: Sequence[int]) -> Float[np.ndarray, "k m"]:
        """Returns cosine similarities of the targets' whitened vectors with all models', in [-1, 1].

        A reference is left out of the references while it is compared itself, so that its similarity is distributed
        like an unrelated suspect's. This takes no more work than leaving it in (Sherman-Morrison formula).

        Args:
          targets: indices of models that are no references.
        """
        rows = np.asarray(targets)
        cross = self._inner[rows] - self._along[:, rows].T @ self._along
        own, other = self._norms[rows, None], self._norms
        draws = np.where(self._task == self._task[rows, None], self._draws, 0)
        left = np.maximum(1 - self._weight * other, 1e-6)
        own = own + (self._weight * cross**2 + 2 * draws * cross + draws**2 * other) / left
        cross, other = (cross + draws * other) / left, other / left
        return np.clip(cross / np.sqrt(np.maximum(own * other, 1e-300)), -1, 1)
