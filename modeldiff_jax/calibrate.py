"""From a score to a p-value and a verdict, by way of models known to be unrelated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from modeldiff_jax.errors import InvalidInputError

Verdict: TypeAlias = Literal["reused", "no_evidence", "inconclusive"]


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


def judge(score: float, reference_scores: Sequence[float], alpha: float) -> Judgement:
    """The verdict on one suspect at error rate `alpha`.

    Never "independent": absence of evidence is all that can be said.
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
    rank = (
        f"{at_least or 'none'} of {n} unrelated references {'is' if at_least <= 1 else 'are'} as similar to the target"
    )
    if n < needed:
        floor = f"With {n} references no p-value can be below {1 / (n + 1):.3g}"
        return Judgement("inconclusive", p_value, f"{floor}; alpha {alpha:g} needs {needed} or more. {rank}.")
    if p_value <= alpha:
        return Judgement(
            "reused",
            p_value,
            f"Were the suspect unrelated, a similarity this high would have probability {p_value:.3g} at most: {rank}.",
        )
    return Judgement("no_evidence", p_value, f"{rank[0].upper()}{rank[1:]}, so this similarity is not unusual.")
