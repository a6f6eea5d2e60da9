"""How a suspect stands among references: is it more related to the target than they are?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.relatedness import Reactions, relatedness
from modeldiff_jax.evidence.representations import as_logits

FEWEST = 8
"""References below which what sets a model apart cannot be told from chance."""
_MOST_OUTPUTS = 2048


@dataclass(frozen=True, slots=True)
class Answers:
    """One model's reactions to a probe set.

    Attributes:
      seeds, partners: (N, C); of long reactions evenly spaced components.
      n_outputs: components of a whole reaction. Models with equally many count as of one label space.
    """

    seeds: Float[np.ndarray, "n c"]
    partners: Float[np.ndarray, "n c"]
    n_outputs: int

    @classmethod
    def of(cls, seeds: Float[np.ndarray, "n c"], partners: Float[np.ndarray, "n c"]) -> Answers:
        """Of whole reactions, of which no more is kept than views need."""
        seeds, partners, n_outputs = as_logits(seeds), as_logits(partners), seeds.shape[1]
        kept = np.linspace(0, n_outputs - 1, min(n_outputs, _MOST_OUTPUTS)).round().astype(int)
        return cls(seeds[:, kept], partners[:, kept], n_outputs)


@dataclass(frozen=True, slots=True)
class Standing:
    """A suspect among n references.

    Attributes:
      scores: view, or `related` -> how related the suspect is to the target by it, in standard deviations of
        references (`modeldiff_jax.evidence.relatedness`). Views that cannot compare the two are missing.
      references: the same of the references, (n,) each; NaN where a view cannot compare.
    """

    scores: Mapping[str, float]
    references: Mapping[str, Float[np.ndarray, " n"]]


def stand(target: Answers, suspect: Answers, references: Sequence[Answers]) -> Standing:
    """The suspect's scores and those of references, computed in the same way.

    The suspect is one more reference while references are scored, and each is left out of its own comparison. So a
    suspect that is as unrelated as the references has each rank among them with equal probability (full conformal
    prediction: Vovk et al., "Algorithmic Learning in a Random World"). That holds among references of the suspect's
    kind: the same views compare those with the target that share a label space with it, or those that do not.

    Args:
      target, suspect: their answers to one probe set, made without the suspect.
      references: of n >= `FEWEST` models known to be unrelated to the target, to the same probes.
    """
    if len(references) < FEWEST:
        raise InvalidInputError(f"Views need {FEWEST} references", got=str(len(references)), where="stand")
    models = [target, suspect, *references]
    reactions = Reactions([m.seeds for m in models], [m.partners for m in models], [m.n_outputs for m in models])
    strangers = np.arange(len(models)) > 0
    found = {
        name: row[0]
        for name, row in relatedness(reactions, [0], range(1, len(models)), strangers).items()
        if np.isfinite(row[0, 0])
    }
    return Standing(
        {name: float(row[0]) for name, row in found.items()}, {name: row[1:] for name, row in found.items()}
    )
