"""From identity, a rank among references and a modelled tail to a verdict, with its reason in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from modeldiff_jax.detection.conformal import conformal_p_value, references_needed
from modeldiff_jax.detection.identity import REASONS, Identity
from modeldiff_jax.detection.tail import Tail, modelled_tail

Verdict: TypeAlias = Literal["reused", "no_evidence", "inconclusive"]
Basis: TypeAlias = Literal["identity", "rank", "tail", "none"]


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and what it rests on.

    Attributes:
      verdict: `reused`, `no_evidence` or `inconclusive`; never "independent", since absence of evidence is all that can
        be said.
      basis: what it rests on: `identity`, the `rank` among references, the modelled `tail`, or `none` of these.
      p_value: the conformal one, a rank among references; None without references.
      tail: the modelled tail beside it; None with too few references.
      n_references: how many were ranked.
      n_at_least: how many of them score at least as high.
      references_needed: how many would let a rank decide; None where the verdict needs no more.
      reason: in words.
    """

    verdict: Verdict
    basis: Basis
    p_value: float | None
    tail: Tail | None
    n_references: int
    n_at_least: int
    references_needed: int | None
    reason: str

    @property
    def decisive_p_value(self) -> float | None:
        """The p-value that verdicts compare with alpha: the rank, or the modelled tail where no reference scores as high.

        The tail counts no further down than its error rate was measured (`Tail.bounded`).
        """
        if self.p_value is None or self.tail is None or self.n_at_least:
            return self.p_value
        return min(self.p_value, self.tail.bounded)


def decide(score: float, reference_scores: Sequence[float], alpha: float, identity: Identity | None = None) -> Decision:
    """Decides on one suspect at error rate `alpha`.

    Args:
      score: the suspect's; higher is more related.
      reference_scores: of n unrelated models of the suspect's kind, computed alike.
      alpha: in (0, 1).
      identity: in what the suspect is identical to the target; it is `reused` then whatever the references say.
    """
    n, needed = len(reference_scores), references_needed(alpha)
    p_value = conformal_p_value(score, reference_scores) if n else None
    n_at_least = sum(reference >= score for reference in reference_scores)
    tail = modelled_tail(score, reference_scores)
    if identity:
        return Decision("reused", "identity", p_value, tail, n, n_at_least, None, REASONS[identity])
    undecided = Decision("inconclusive", "none" if not n else "rank", p_value, tail, n, n_at_least, needed, "")
    if p_value is None:
        reason = (
            "A similarity alone has no error rate: how similar unrelated models are depends on their task and inputs. "
            f"Pass at least {needed} unrelated models of the suspect's kind as references to get a p-value and a verdict."
        )
        return replace(undecided, reason=reason)
    rank = f"{n_at_least or 'none'} of {n} references {'scores' if n_at_least <= 1 else 'score'} as high"
    if p_value <= alpha:
        reason = f"Were the suspect unrelated, a score this high would have probability {p_value:.3g} at most: {rank}."
        return replace(undecided, verdict="reused", references_needed=None, reason=reason)
    decisive = undecided.decisive_p_value
    if tail is not None and decisive is not None and decisive <= alpha:
        reason = (
            f"The score lies {tail.deviations:.1f} standard deviations above the references' mean, and {rank}. Were the "
            f"suspect unrelated, a score this high would have probability {decisive:.2g} by {tail.method}. A rank among "
            f"{n} references cannot go below {p_value:.2g}; with {needed} or more it decides by itself."
        )
        return replace(undecided, verdict="reused", basis="tail", references_needed=None, reason=reason)
    if n < needed or not n_at_least:
        reason = (
            f"With {n} references no p-value can be below {1 / (n + 1):.3g}; alpha {alpha:g} needs {needed} or more. "
            f"{_sentence(rank)}"
        )
        return replace(undecided, reason=reason)
    return replace(
        undecided,
        verdict="no_evidence",
        references_needed=None,
        reason=f"{_sentence(rank, ', so this score is not unusual')}",
    )


def decide_among(decision: Decision, adjusted: float | None, alpha: float, n_suspects: int) -> Decision:
    """Returns the decision on one of several suspects, given its p-value adjusted for how many there are.

    Args:
      decision: on the suspect alone, at the same `alpha`.
      adjusted: `decision.decisive_p_value`, adjusted; None where there is none.
      alpha: the error rate over all suspects.
      n_suspects: how many were adjusted for.
    """
    if decision.basis == "identity" or adjusted is None or n_suspects == 1:
        return decision
    if adjusted <= alpha:
        return decision
    needed = references_needed(alpha / n_suspects)
    if decision.verdict == "no_evidence":
        return decision
    if decision.n_at_least and decision.n_references >= needed:
        reason = f"{decision.reason} Among {n_suspects} suspects that is not unusual (adjusted p-value {adjusted:.2g})."
        return replace(decision, verdict="no_evidence", references_needed=None, reason=reason)
    reason = (
        f"{decision.n_at_least or 'None'} of {decision.n_references} references score as high; adjusted for {n_suspects} "
        f"suspects the p-value is {adjusted:.2g}, and {decision.n_references} references allow none that would decide: "
        f"{needed} or more do."
    )
    return replace(decision, verdict="inconclusive", references_needed=needed, reason=reason)


def _sentence(text: str, ending: str = "") -> str:
    return f"{text[0].upper()}{text[1:]}{ending}."
