"""Representations: functions from a model's reactions to one vector, so that two models can be compared.

Some representations keep what each output means, and compare models of one label space only; the others hold distances,
so that models of different label spaces have vectors of one length. The word is QuRD's (Godinot et al., AAAI 2025).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from modeldiff_jax.kernels import paired_distances, pairwise_distances

_LEAST_DISTANCE = 1e-4
"""Added to distances before their logarithm, so that movements as small as quantisation's do not count as evidence."""


@dataclass(frozen=True, slots=True)
class Representation:
    """A function from reactions to a vector, and which models and reactions it needs.

    Attributes:
      name: its key in `REPRESENTATIONS`, and in the evidence.
      vector: (N, C) reactions to seeds, (N, C) to partners -> (D,).
      same_label_space: whether it compares models of one label space only.
      partners: whether it reads the reactions to partners.
    """

    name: str
    vector: Callable[[np.ndarray, np.ndarray], np.ndarray]
    same_label_space: bool
    partners: bool


def as_logits(reactions: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
    """Returns logits for reactions that are probabilities, so that a softmax at a model's end makes no difference.

    Args:
      reactions: of one model. They count as probabilities if none is negative and all rows sum to 1.
    Returns:
      Logarithms of probabilities, these no less than 1e-7, minus their mean; any other reactions as they are.
    """
    x = np.asarray(reactions)
    if x.shape[1] == 1 or x.min() < 0 or not np.allclose(x.sum(axis=1), 1, atol=1e-3):
        return x
    logits = np.log(np.maximum(x, 1e-7))
    return logits - logits.mean(axis=1, keepdims=True)


def _logits(seeds: Float[np.ndarray, "n c"], partners: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " d"]:
    """Returns all logits, centred for each input, in standard units: kept by pruning, quantisation, distillation."""
    return np.concatenate([_standardised(seeds), _standardised(partners)]).ravel()


def _probabilities(seeds: Float[np.ndarray, "n c"], partners: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " d"]:
    """Returns the probabilities of the seeds: what a student learns when a model is stolen by its outputs."""
    del partners
    return np.ravel(softmax(seeds, axis=1))


def _ddv(seeds: Float[np.ndarray, "n c"], partners: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
    """Returns the logarithm of the decision distance vector (Li et al., ISSTA 2021): kept by transfer learning."""
    if seeds.shape[1] == 1:  # one number has no direction
        distance = np.asarray(paired_distances(seeds, partners, metric="euclidean")) / (seeds.std() + 1e-12)
    else:
        distance = np.asarray(paired_distances(seeds, partners, metric="cosine"))
    return np.log(distance + _LEAST_DISTANCE)


def _geometry(seeds: Float[np.ndarray, "n c"], partners: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " p"]:
    """Returns Euclidean distances between the logits of all pairs of seeds: a representational dissimilarity matrix."""
    del partners
    distances = np.asarray(pairwise_distances(_standardised(seeds), metric="euclidean"))
    return distances[np.triu_indices(len(seeds), 1)]


def _standardised(x: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
    centred = x - x.mean(axis=1 if x.shape[1] > 1 else 0, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2) + 1e-12)


REPRESENTATIONS = {
    representation.name: representation
    for representation in (
        Representation("logits", _logits, same_label_space=True, partners=True),
        Representation("probabilities", _probabilities, same_label_space=True, partners=False),
        Representation("ddv", _ddv, same_label_space=False, partners=True),
        Representation("geometry", _geometry, same_label_space=False, partners=False),
    )
}
