"""Verdicts: from identity, ranks, the modelled tail, and the number of suspects."""

import numpy as np
import pytest

from modeldiff_jax.detection.conformal import adjust_p_values, references_needed
from modeldiff_jax.detection.decision import decide, decide_among

RNG = np.random.default_rng(0)


def null(n):
    return np.linspace(-2, 2, n).tolist()


@pytest.mark.parametrize(
    ("score", "n", "verdict", "basis", "p_value"),
    [
        (9.0, 0, "inconclusive", "none", None),
        (9.0, 5, "inconclusive", "rank", 1 / 6),
        (9.0, 19, "reused", "rank", 1 / 20),
        (-9.0, 19, "no_evidence", "rank", 1.0),
        (-9.0, 5, "inconclusive", "rank", 1.0),
    ],
)
def test_one_suspect(score, n, verdict, basis, p_value):
    decision = decide(score, null(n), alpha=0.05)
    assert (decision.verdict, decision.basis) == (verdict, basis)
    assert decision.p_value == (None if p_value is None else pytest.approx(p_value))
    assert (decision.references_needed == 19) == (verdict == "inconclusive")


def test_the_reason_gives_the_number_of_references_that_would_decide():
    assert "at least 19 unrelated models" in decide(0.99, [], alpha=0.05).reason
    assert "99 or more references would decide" in decide(2.1, null(20), alpha=0.01).reason


@pytest.mark.parametrize("identity", ["file", "weights", "outputs"])
@pytest.mark.parametrize("n", [0, 3, 50])
def test_identity_decides_whatever_the_references(identity, n):
    decision = decide(-5.0, null(n), 0.05, identity)
    assert (decision.verdict, decision.basis, decision.references_needed) == ("reused", "identity", None)
    assert "same" in decision.reason


def test_a_score_far_above_all_references_is_decided_by_the_tail():
    decision = decide(20.0, null(24), alpha=0.01)
    assert decision.p_value == pytest.approx(1 / 25)
    assert (decision.verdict, decision.basis) == ("reused", "tail")
    assert decision.decisive_p_value == decision.tail.floor
    assert decision.tail.method in decision.reason


@pytest.mark.parametrize(("n", "n_suspects", "stated"), [(24, 1, "0.04"), (99, 3, "0.03")])
def test_a_reason_by_rank_states_the_ranks_p_value_and_not_the_tails(n, n_suspects, stated):
    alone = decide(20.0, null(n), alpha=0.05)
    decision = decide_among(alone, min(1.0, n_suspects * alone.decisive_p_value), 0.05, n_suspects)
    assert (decision.verdict, decision.basis) == ("reused", "rank")
    assert f"probability {stated} at most" in decision.reason


def test_the_tail_never_overrides_a_reference_that_scores_as_high_as_the_suspect():
    decision = decide(5.0, [*null(24), 6.0], alpha=0.05)
    assert decision.tail.bounded < decision.p_value
    assert decision.decisive_p_value == decision.p_value == pytest.approx(2 / 26)


@pytest.mark.parametrize("n_suspects", [2, 13, 50])
def test_copies_among_many_suspects_are_detected_with_two_dozen_references(n_suspects):
    alone = [decide(15.0, null(24), 0.05) for _ in range(n_suspects)]
    adjusted = adjust_p_values([d.decisive_p_value for d in alone])
    decision = [decide_among(d, p, 0.05, n_suspects) for d, p in zip(alone, adjusted, strict=True)]
    assert {(d.verdict, d.basis) for d in decision} == {("reused", "tail")}


def test_below_the_tails_floor_more_references_are_needed():
    decision = decide_among(decide(15.0, null(24), 0.05), 0.2, 0.05, 200)
    assert decision.verdict == "inconclusive"
    assert decision.references_needed == references_needed(0.05 / 200)
    assert str(decision.references_needed) in decision.reason


@pytest.mark.parametrize(
    ("n", "n_at_least", "verdict"),
    [
        (24, 0, "inconclusive"),  # no reference scores as high as the suspect, but no rank among 24 is low enough
        (24, 1, "no_evidence"),  # not unusual even alone: 2 / 25
        (24, 12, "no_evidence"),
        (39, 1, "inconclusive"),  # alone it would be unusual: 2 / 40
        (300, 2, "no_evidence"),  # 259 references can decide among 13, and do
        (10, 5, "inconclusive"),  # too few to decide on one
    ],
)
def test_among_thirteen_suspects(n, n_at_least, verdict):
    scores = sorted(RNG.normal(size=n).tolist())
    # just below one reference's score, so that exactly n_at_least are at least as high
    score = scores[-n_at_least] - 1e-9 if n_at_least else scores[-1] + 0.1
    alone = decide(score, scores, 0.05)
    assert alone.n_at_least == n_at_least
    decision = decide_among(alone, min(1.0, 13 * alone.decisive_p_value), 0.05, 13)
    assert decision.verdict == verdict
