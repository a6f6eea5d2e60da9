"""A modelled tail: how improbable a score is beyond what a rank among n references can say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

FLOOR = 0.001
"""The smallest probability at which the error rate was measured to hold; see docs/error-rates.md."""
FEWEST = 19
"""References below which the tail is not modelled."""


@dataclass(frozen=True, slots=True)
class Tail:
    """The probability of a score by a distribution fitted to references' scores.

    Attributes:
      method: name of the model.
      deviations: standard deviations of the references' scores that the score lies above their mean.
      p_value: probability of a score at least this high, in (0, 1).
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
    """Models the tail of references' scores by Student's t, predictive of one more score.

    Args:
      score: the suspect's; higher is more related.
      reference_scores: of n unrelated models, computed alike.
    Returns:
      The tail; None with fewer than `FEWEST` references, or where their scores do not vary.
    """
    n = len(reference_scores)
    deviation = float(np.std(reference_scores, ddof=1)) if n >= FEWEST else 0.0
    if not deviation:
        return None
    deviations = (score - float(np.mean(reference_scores))) / deviation
    p_value = float(stats.t.sf(deviations / math.sqrt(1 + 1 / n), n - 1))
    return Tail("Student's t", deviations, p_value)
