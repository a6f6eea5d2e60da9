"""Decisions: a verdict from identity, a rank among references and a modelled tail, with its reason in words."""

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
    """A verdict and its basis.

    Attributes:
      verdict: `reused`, `no_evidence` or `inconclusive`; never "independent", since absence of evidence is all that can
        be shown.
      basis: what the verdict rests on: `identity`, the `rank` among references, the modelled `tail`, or `none`.
      p_value: conformal p-value, from the rank among references; None without references.
      tail: the modelled tail; None with too few references.
      n_references: number of references that were ranked.
      n_at_least: number of references that score at least as high as the suspect.
      references_needed: number of references with which a rank could decide; None where the verdict needs no more.
      reason: reason for the verdict, in words.
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
        """The p-value that a verdict compares with alpha; None without references.

        It is that of the rank or, where no reference scores as high as the suspect, that of the modelled tail, down to
        the smallest value at which its error rate was measured (`Tail.bounded`).
        """
        if self.p_value is None or self.tail is None or self.n_at_least:
            return self.p_value
        return min(self.p_value, self.tail.bounded)

    @property
    def rank_in_words(self) -> str:
        """The number of references that score as high as the suspect, as a clause."""
        verb = "scores" if self.n_at_least <= 1 else "score"
        return f"{self.n_at_least or 'None'} of {self.n_references} references {verb} as high as the suspect"


def decide(score: float, reference_scores: Sequence[float], alpha: float, identity: Identity | None = None) -> Decision:
    """Decides on one suspect at error rate `alpha`.

    Args:
      score: the suspect's score; higher is more related.
      reference_scores: scores of n references of the suspect's kind, computed alike.
      alpha: in (0, 1).
      identity: the respect in which the suspect is identical to the target; it is then `reused`, whatever the
        references.
    """
    n = len(reference_scores)
    undecided = Decision(
        verdict="inconclusive",
        basis="rank" if n else "none",
        p_value=conformal_p_value(score, reference_scores) if n else None,
        tail=modelled_tail(score, reference_scores),
        n_references=n,
        n_at_least=sum(reference >= score for reference in reference_scores),
        references_needed=references_needed(alpha),
        reason="",
    )
    if identity:
        return replace(undecided, verdict="reused", basis="identity", references_needed=None, reason=REASONS[identity])
    return _by_references(undecided, undecided.decisive_p_value, alpha, references_needed(alpha))


def decide_among(decision: Decision, adjusted: float | None, alpha: float, n_suspects: int) -> Decision:
    """Decides on one of several suspects, given its p-value adjusted for their number.

    Args:
      decision: the decision on the suspect alone.
      adjusted: its adjusted `decisive_p_value`; None where there is none, or where identity decides.
      alpha: error rate over all suspects.
      n_suspects: number of suspects that the p-value was adjusted for.
    """
    if adjusted is None:
        return decision
    return _by_references(decision, adjusted, alpha, references_needed(alpha / n_suspects), n_suspects)


def _by_references(
    decision: Decision, p_value: float | None, alpha: float, needed: int, n_suspects: int = 1
) -> Decision:
    """Decides by comparing a p-value, adjusted for the number of suspects, with alpha.

    Args:
      decision: rank and tail; its verdict is not read.
      p_value: the decisive p-value, adjusted.
      alpha: error rate over all suspects.
      needed: number of references with which a rank can reach alpha.
      n_suspects: number of suspects.
    """
    rank, n = decision.rank_in_words, decision.n_references
    among = f", adjusted for {n_suspects} suspects" if n_suspects > 1 else ""
    if p_value is None or decision.p_value is None:
        reason = (
            "A similarity alone has no error rate: how similar unrelated models are depends on their task and inputs. "
            f"Pass at least {needed} unrelated models of the suspect's kind as references to get a verdict."
        )
        return replace(decision, verdict="inconclusive", basis="none", references_needed=needed, reason=reason)
    if p_value <= alpha:
        tail = None if decision.n_at_least or decision.p_value * n_suspects <= alpha else decision.tail
        # where the rank suffices, its p-value is stated, though the decisive one may be the tail's
        by_rank_alone = tail is None and decision.decisive_p_value != decision.p_value
        stated = decision.p_value * n_suspects if by_rank_alone else p_value
        reason = f"{rank}. An unrelated suspect would score this high with probability {stated:.2g} at most{among}"
        if tail is None:
            return replace(decision, verdict="reused", basis="rank", references_needed=None, reason=f"{reason}.")
        reason += (
            f": it lies {tail.deviations:.1f} standard deviations above the references' mean, and "
            f"{tail.method} extends their ranks, which cannot go below {decision.p_value:.2g}."
        )
        return replace(decision, verdict="reused", basis="tail", references_needed=None, reason=reason)
    coarse = n < references_needed(alpha) or (n < needed and decision.p_value <= alpha)
    if not decision.n_at_least or coarse:  # more references could change the verdict
        reason = (
            f"{rank}, but with {n} references no rank can go below {1 / (n + 1):.2g}, and {alpha:g}{among} asks for "
            f"less: {needed} or more references would decide."
        )
        return replace(decision, verdict="inconclusive", basis="rank", references_needed=needed, reason=reason)
    reason = f"{rank}, so this score is not unusual (p-value {p_value:.2g}{among})."
    return replace(decision, verdict="no_evidence", basis="rank", references_needed=None, reason=reason)
