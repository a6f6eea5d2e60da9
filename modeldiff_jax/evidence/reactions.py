"""Records of one model's reactions to a probe set, in the form that evidence compares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from modeldiff_jax.evidence.representations import as_logits

_MOST_COMPONENTS = 2048


@dataclass(frozen=True, slots=True)
class Reactions:
    """One model's reactions to N probe pairs.

    Attributes:
      seeds: (N, C) reactions to the seeds, as logits; C evenly spaced components of reactions that are longer.
      partners: (N, C) reactions to their partners, likewise.
      n_outputs: components of a whole reaction. Models with equally many count as sharing a label space.
    """

    seeds: Float[np.ndarray, "n c"]
    partners: Float[np.ndarray, "n c"]
    n_outputs: int

    @classmethod
    def of(cls, seeds: Float[np.ndarray, "n c"], partners: Float[np.ndarray, "n c"]) -> Reactions:
        """Returns the record for whole reactions, with no more components than representations need."""
        seeds, partners, n_outputs = as_logits(seeds), as_logits(partners), seeds.shape[1]
        kept = np.linspace(0, n_outputs - 1, min(n_outputs, _MOST_COMPONENTS)).round().astype(int)
        return cls(seeds[:, kept], partners[:, kept], n_outputs)
