"""Conformal p-values: the rank of a score among references' scores, and its adjustment for several suspects."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Literal, TypeAlias

from modeldiff_jax.errors import InvalidInputError

Correction: TypeAlias = Literal["holm", "benjamini-hochberg"]


def conformal_p_value(score: float, reference_scores: Sequence[float]) -> float:
    """Returns the p-value of a score's rank among the scores of references.

    Under the null hypothesis the suspect is one more unrelated model, exchangeable with the references, so every rank
    is equally likely and P(p <= alpha) <= alpha for any score and any number of references (Vovk et al., "Algorithmic
    Learning in a Random World"). Ties count in the suspect's favour.

    Args:
      score: the suspect's score; higher is more related.
      reference_scores: n scores, computed exactly as the suspect's.
    Returns:
      (1 + number of references scoring at least as high) / (n + 1), in [1/(n+1), 1].
    """
    if not reference_scores:
        raise InvalidInputError("A p-value needs references", got="none", fix="pass unrelated models as references")
    if not all(map(math.isfinite, [score, *reference_scores])):
        raise InvalidInputError("Scores are finite numbers", got="NaN or infinity", where="conformal_p_value")
    at_least = sum(reference >= score for reference in reference_scores)
    return (1 + at_least) / (len(reference_scores) + 1)


def adjust_p_values(p_values: Collection[float], correction: Correction = "holm") -> list[float]:
    """Adjusts the p-values of several suspects, so that each may be compared with alpha.

    Args:
      p_values: one for each suspect, in [0, 1].
      correction: `holm` keeps the chance of even one false accusation at alpha, however the suspects depend on one
        another (Holm 1979). `benjamini-hochberg` keeps the expected share of false accusations among all at alpha, for
        p-values that are independent or depend positively, as conformal p-values on shared references do (Benjamini and
        Hochberg 1995; Bates et al. 2023).
    Returns:
      Adjusted p-values in the given order, none smaller than before.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise InvalidInputError("P-values lie in [0, 1]", got=str(list(p_values))[:200], where="adjust_p_values")
    values = list(p_values)
    if correction == "benjamini-hochberg":
        from scipy.stats import false_discovery_control  # takes half a second to import

        return [float(p) for p in false_discovery_control(values)] if values else []
    if correction != "holm":
        raise InvalidInputError(
            '`correction` is "holm" or "benjamini-hochberg"', got=repr(correction), where="adjust_p_values"
        )
    m, least, adjusted = len(values), 0.0, [0.0] * len(values)
    for rank, i in enumerate(sorted(range(m), key=lambda i: values[i])):
        adjusted[i] = least = max(least, min(1.0, (m - rank) * values[i]))
    return adjusted


def references_needed(alpha: float) -> int:
    """Returns the fewest references with which a p-value can reach `alpha`."""
    # 1/(n+1) <= alpha; the tolerance keeps 0.05 at 19 though 1/0.05 is not exact
    return max(1, math.ceil(1 / alpha - 1e-9) - 1)
