"""A modelled tail: how improbable a score is, beyond the least p-value that a rank among n references can give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

FLOOR = 0.001
"""The smallest probability at which the error rate was measured to hold, on unrelated pairs of one architecture and of
two, with 19 to 99 references: `python -m bench.modelreuse reliability`, docs/error-rates.md."""
FEWEST = 19
"""The fewest references that its error rate was measured with."""


@dataclass(frozen=True, slots=True)
class Tail:
    """The probability of a score under a distribution fitted to the references' scores.

    Attributes:
      method: the distribution, in words.
      deviations: standard deviations of the references' scores that the score lies above their mean.
      p_value: probability of a score at least as high, in (0, 1).
      floor: the smallest p-value whose error rate was measured to hold.
    """

    method: str
    deviations: float
    p_value: float
    floor: float = FLOOR

    @property
    def bounded(self) -> float:
        """The p-value, no smaller than the floor."""
        return max(self.p_value, self.floor)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON-able data."""
        return asdict(self)


def modelled_tail(score: float, reference_scores: Sequence[float]) -> Tail | None:
    """Models the tail of references' scores by a Gumbel distribution of their mean and deviation.

    The fused score is the sum of the two greatest of several, and greatest values have such a tail: longer than the
    normal distribution's. Fitted to 19 to 99 scores it erred on the safe side where Student's t did not.

    Args:
      score: the suspect's score; higher is more related.
      reference_scores: scores of n references, computed alike.
    Returns:
      The tail; None with fewer than `FEWEST` references, or where their scores do not vary.
    """
    deviation = float(np.std(reference_scores, ddof=1)) if len(reference_scores) >= FEWEST else 0.0
    if not deviation:
        return None
    deviations = (score - float(np.mean(reference_scores))) / deviation
    # with mean 0 and deviation 1: scale sqrt(6) / pi, location -gamma * scale
    p_value = float(-np.expm1(-np.exp(-np.clip(deviations * np.pi / np.sqrt(6) + np.euler_gamma, -50, None))))
    return Tail("a Gumbel distribution", deviations, p_value)
