"""What a model's reactions to probe pairs are turned into, so that two models' can be held against each other.

A view maps the reactions to N seeds and their N partners to one vector. Views of one label space keep what each output
means; the others hold distances only, so that models of different tasks have vectors of one length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import pdist
from scipy.special import softmax

Features = Callable[[np.ndarray, np.ndarray], np.ndarray]

_LEAST = 1e-4
"""Added to distances before their logarithm: what a quantised copy moves is no evidence."""


@dataclass(frozen=True, slots=True)
class View:
    """One way to look at reactions.

    Attributes:
      name: key in `VIEWS`, and of the evidence it gives.
      features: (N, C) reactions to seeds, (N, C) to partners -> (D,).
      same_labels: whether it compares models of one label space only.
      partners: whether it looks at the reactions to partners.
    """

    name: str
    features: Features
    same_labels: bool
    partners: bool


def as_logits(reactions: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
    """Reactions of which probabilities are turned back into logits: a softmax at a model's end is no difference.

    Args:
      reactions: of one model. Each row counts as probabilities if none is negative and all sum to 1.
    Returns:
      Logarithms of probabilities, no less than that of 1e-7, about their mean; anything else as it is.
    """
    x = np.asarray(reactions)
    if x.shape[1] == 1 or x.min() < 0 or not np.allclose(x.sum(axis=1), 1, atol=1e-3):
        return x
    logits = np.log(np.maximum(x, 1e-7))
    return logits - logits.mean(axis=1, keepdims=True)


def _logits(seeds: Float[np.ndarray, "n c"], partners: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " d"]:
    """All logits, centred for each input and of one scale: kept by pruning, quantisation and feature distillation."""
    return np.concatenate([_standard(seeds), _standard(partners)]).ravel()


def _probabilities(seeds: Float[np.ndarray, "n c"], partners: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " d"]:
    """Probabilities of the seeds: what a student is taught when a model is stolen by its answers."""
    del partners
    return np.ravel(softmax(seeds, axis=1))


def _ddv(seeds: Float[np.ndarray, "n c"], partners: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
    """Logarithm of the decision distance vector (Li et al., ISSTA 2021): kept by transfer to another task."""
    if seeds.shape[1] == 1:  # one number has no direction
        distance = np.abs(seeds - partners)[:, 0] / (seeds.std() + 1e-12)
    else:
        norms = np.linalg.norm(seeds, axis=1) * np.linalg.norm(partners, axis=1)
        distance = 1 - np.sum(seeds * partners, axis=1) / np.maximum(norms, 1e-12)
    return np.log(np.maximum(distance, 0) + _LEAST)


def _geometry(seeds: Float[np.ndarray, "n c"], partners: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " p"]:
    """Euclidean distances between the logits of all two seeds (a representational dissimilarity matrix)."""
    del partners
    return pdist(_standard(seeds))


def _standard(x: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
    centred = x - x.mean(axis=1 if x.shape[1] > 1 else 0, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2) + 1e-12)


VIEWS = {
    view.name: view
    for view in (
        View("logits", _logits, same_labels=True, partners=True),
        View("probabilities", _probabilities, same_labels=True, partners=False),
        View("ddv", _ddv, same_labels=False, partners=True),
        View("geometry", _geometry, same_labels=False, partners=False),
    )
}
