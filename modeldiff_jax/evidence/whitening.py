"""Within-class covariance normalisation: compares two models by what distinguishes them from references.

Unrelated models of one label space react alike, because they are trained for the same thing. What they share is no
evidence of descent, so it is removed: from each model's vector the mean of the references of its label space (its
class, here), then, in proportion to their variance, the directions in which references differ from one another anyway
(as in speaker verification, Hatch et al., Interspeech 2006). All of it needs inner products of the models'
vectors only, so it costs the same for vectors of any length.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import cholesky, solve_triangular

SHRINKAGE = 1.0
"""Share of the references' mean variance that is added to the variance of each direction."""
_FEWEST = 3
"""Fewest references of a label space that are averaged alone, without those of other label spaces."""


def gram(vectors: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m m"]:
    """Returns inner products of models' vectors after subtracting their mean, in float64."""
    x = np.asarray(vectors, np.float64)
    x = x - x.mean(axis=0)
    return x @ x.T


class WithinClassWhitening:
    """Whitens models' vectors by the covariance of references within each label space.

    Args:
      products: inner products of the models' vectors, relative to any origin.
      label_spaces: one for each model. A label space's mean is that of its references; of all references where it has
        fewer than three.
      references: which models are known to be unrelated to the targets. At least two.
      shrinkage: see `SHRINKAGE`; large values leave the centred vectors as they are.
    """

    def __init__(
        self,
        products: Float[np.ndarray, "m m"],
        label_spaces: Sequence[Hashable],
        references: Bool[np.ndarray, " m"],
        shrinkage: float = SHRINKAGE,
    ) -> None:
        n = int(references.sum())
        distinct = list(dict.fromkeys(label_spaces))
        self._space_index = np.array([distinct.index(space) for space in label_spaces])
        size, inner = np.empty(len(products)), np.array(products)
        groups = [self._space_index == i for i in range(len(distinct))]
        pools = [references & group if (references & group).sum() >= _FEWEST else references for group in groups]
        for group, pool in zip(groups, pools, strict=True):
            inner[group] -= products[pool].mean(axis=0)
            size[group] = pool.sum()
        means = [inner[:, pool].mean(axis=1, keepdims=True) for pool in pools]
        for group, mean in zip(groups, means, strict=True):
            inner[:, group] -= mean
        floor = shrinkage * float(np.trace(inner[np.ix_(references, references)])) / n**2
        floor = max(floor, 1e-14 * float(np.abs(products).max()), 1e-300)  # references that are all the same
        # the part of each model's vector that references explain: its inner products with them, over scatter and ridge
        scatter = inner[np.ix_(references, references)] + n * floor * np.eye(n)
        self._explained = solve_triangular(
            cholesky(scatter, lower=True, check_finite=False), inner[references], lower=True, check_finite=False
        )
        self._inner = inner
        self._norms = np.maximum(np.diag(inner) - np.sum(self._explained**2, axis=0), 0)
        # a reference's part in the scatter, as a share of the ridge, and how far it moves its label space's mean
        self._scatter_weight = np.where(references, size / np.maximum(size - 1, 1) / (n * floor), 0)
        self._mean_shift = np.where(references, 1 / np.maximum(size - 1, 1), 0)

    def similarities(self, targets: Sequence[int]) -> Float[np.ndarray, "k m"]:
        """Returns cosine similarities of the targets' whitened vectors with all models', in [-1, 1].

        A reference is left out of the references while it is compared itself, so that its similarity is distributed
        like an unrelated suspect's. This takes no more work than leaving it in (Sherman-Morrison formula).

        Args:
          targets: indices of models that are not references.
        """
        rows = np.asarray(targets)
        cross = self._inner[rows] - self._explained[:, rows].T @ self._explained
        target_norm, other_norm = self._norms[rows, None], self._norms
        shift = np.where(self._space_index == self._space_index[rows, None], self._mean_shift, 0)
        remaining = np.maximum(1 - self._scatter_weight * other_norm, 1e-6)
        target_norm = (
            target_norm + (self._scatter_weight * cross**2 + 2 * shift * cross + shift**2 * other_norm) / remaining
        )
        cross, other_norm = (cross + shift * other_norm) / remaining, other_norm / remaining
        return np.clip(cross / np.sqrt(np.maximum(target_norm * other_norm, 1e-300)), -1, 1)
