"""From a score to a p-value and a verdict, by way of models known to be unrelated."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from scipy.stats import false_discovery_control

from modeldiff_jax.errors import InvalidInputError

Verdict: TypeAlias = Literal["reused", "no_evidence", "inconclusive"]
Correction: TypeAlias = Literal["holm", "benjamini-hochberg"]


def conformal_p_value(score: float, reference_scores: Sequence[float]) -> float:
    """Rank of a score among those of unrelated references.

    Under the null hypothesis the suspect is one more unrelated model, exchangeable with the references, so every rank
    is equally likely and P(p <= alpha) <= alpha for any score and any number of references (Vovk et al., "Algorithmic
    Learning in a Random World"). Ties count in the suspect's favour.

    Args:
      score: the suspect's; higher is more related.
      reference_scores: n scores, computed exactly as the suspect's was.
    Returns:
      (1 + number of references scoring at least as high) / (n + 1), in [1/(n+1), 1].
    """
    if not reference_scores:
        raise InvalidInputError("A p-value needs references", got="none", fix="pass unrelated models as references")
    if not all(map(math.isfinite, [score, *reference_scores])):
        raise InvalidInputError("Scores are finite numbers", got="NaN or infinity", where="conformal_p_value")
    at_least = sum(reference >= score for reference in reference_scores)
    return (1 + at_least) / (len(reference_scores) + 1)


def adjusted(p_values: Collection[float], correction: Correction = "holm") -> list[float]:
    """P-values of several suspects, made larger so that each may be held against alpha.

    Args:
      p_values: one a suspect, in [0, 1].
      correction: `holm` keeps the chance of even one false accusation at alpha, however the suspects depend on one
        another (Holm 1979). `benjamini-hochberg` keeps the expected share of false accusations among all at alpha, for
        p-values that are independent or depend positively, as conformal ones on shared references do (Benjamini and
        Hochberg 1995; Bates et al. 2023).
    Returns:
      Adjusted p-values in the given order, each at least its own.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise InvalidInputError("P-values lie in [0, 1]", got=str(list(p_values))[:200], where="adjusted")
    values = list(p_values)
    if correction == "benjamini-hochberg":
        return [float(p) for p in false_discovery_control(values)] if values else []
    if correction != "holm":
        raise InvalidInputError(
            '`correction` is "holm" or "benjamini-hochberg"', got=repr(correction), where="adjusted"
        )
    m, least, found = len(values), 0.0, [0.0] * len(values)
    for rank, i in enumerate(sorted(range(m), key=lambda i: values[i])):
        found[i] = least = max(least, min(1.0, (m - rank) * values[i]))
    return found


def references_needed(alpha: float) -> int:
    """The fewest references with which a p-value can reach `alpha`."""
    # 1/(n+1) <= alpha; the tolerance keeps 0.05 at 19 though 1/0.05 is not exact
    return max(1, math.ceil(1 / alpha - 1e-9) - 1)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, the p-value behind it, and the reason in words."""

    verdict: Verdict
    p_value: float | None
    reason: str


def judge(
    score: float, reference_scores: Sequence[float], alpha: float, kind: str = "unrelated references"
) -> Judgement:
    """The verdict on one suspect at error rate `alpha`.

    Never "independent": absence of evidence is all that can be said.

    Args:
      score: the suspect's; higher is more related.
      reference_scores: of unrelated models.
      alpha: in (0, 1).
      kind: what the reference scores are of, in words, several.
    """
    if not 0 < alpha < 1:
        raise InvalidInputError("alpha lies strictly between 0 and 1", got=str(alpha), where="alpha")
    needed = references_needed(alpha)
    if not reference_scores:
        return Judgement(
            "inconclusive",
            None,
            "A similarity alone has no error rate: how similar unrelated models are depends on their task and inputs. "
            f"Pass at least {needed} unrelated models of the same kind as references to get a p-value and a verdict.",
        )
    n = len(reference_scores)
    p_value = conformal_p_value(score, reference_scores)
    at_least = sum(reference >= score for reference in reference_scores)
    rank = f"{at_least or 'none'} of {n} {kind} {'is' if at_least <= 1 else 'are'} as close"
    if n < needed:
        floor = f"With {n} references no p-value can be below {1 / (n + 1):.3g}"
        return Judgement("inconclusive", p_value, f"{floor}; alpha {alpha:g} needs {needed} or more. {rank}.")
    if p_value <= alpha:
        return Judgement(
            "reused",
            p_value,
            f"Were the suspect unrelated, a score this high would have probability {p_value:.3g} at most: {rank}.",
        )
    return Judgement("no_evidence", p_value, f"{rank[0].upper()}{rank[1:]}, so this score is not unusual.")
