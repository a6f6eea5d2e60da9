"""Scores of a suspect and of references against one target, computed alike, so that they can be ranked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.reactions import Reactions
from modeldiff_jax.evidence.relatedness import ReactionTable, relatedness

FEWEST = 8
"""References below which what sets a model apart cannot be told from chance."""


@dataclass(frozen=True, slots=True)
class ReferenceScores:
    """How related a suspect and n references are to a target.

    Attributes:
      suspect: representation, or `related` -> the suspect's score, in standard deviations of references
        (`modeldiff_jax.evidence.relatedness`). Representations that cannot compare the two are missing.
      references: the same of the references, (n,) each; NaN where a representation cannot compare.
    """

    suspect: Mapping[str, float]
    references: Mapping[str, Float[np.ndarray, " n"]]


def score_against_references(target: Reactions, suspect: Reactions, references: Sequence[Reactions]) -> ReferenceScores:
    """Scores the suspect and the references against the target.

    The suspect is one more reference while references are scored, and each model is left out of its own comparison. So
    a suspect that is as unrelated as the references takes each rank among them with equal probability (full conformal
    prediction: Vovk et al., "Algorithmic Learning in a Random World"). That holds among references of the suspect's
    kind: the same representations compare those with the target that share a label space with it, or those that do not.

    Args:
      target, suspect: their reactions to one probe set, made without the suspect.
      references: of n >= `FEWEST` models known to be unrelated to the target, to the same probes.
    """
    if len(references) < FEWEST:
        raise InvalidInputError(
            f"Representations are compared with {FEWEST} references or more",
            got=str(len(references)),
            where="score_against_references",
        )
    models = [target, suspect, *references]
    table = ReactionTable([m.seeds for m in models], [m.partners for m in models], [m.n_outputs for m in models])
    unrelated = np.arange(len(models)) > 0
    scores = {
        name: row[0]
        for name, row in relatedness(table, [0], range(1, len(models)), unrelated).items()
        if np.isfinite(row[0, 0])
    }
    return ReferenceScores(
        {name: float(row[0]) for name, row in scores.items()}, {name: row[1:] for name, row in scores.items()}
    )
