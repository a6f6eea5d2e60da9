"""Verdicts: from identity, ranks, the modelled tail, and the number of suspects."""

import numpy as np
import pytest

from modeldiff_jax.detection.conformal import adjust_p_values, references_needed
from modeldiff_jax.detection.decision import decide, decide_among

RNG = np.random.default_rng(0)


def null(n):
    return list(np.linspace(-2, 2, n)) if n else []


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
    found = decide(score, null(n), alpha=0.05)
    assert (found.verdict, found.basis) == (verdict, basis)
    assert found.p_value == (None if p_value is None else pytest.approx(p_value))
    assert (found.references_needed == 19) == (verdict == "inconclusive")


def test_the_reason_says_how_many_references_would_decide():
    assert "at least 19 unrelated models" in decide(0.99, [], alpha=0.05).reason
    assert "99 or more references would decide" in decide(2.1, null(20), alpha=0.01).reason


@pytest.mark.parametrize("identity", ["file", "weights", "outputs"])
@pytest.mark.parametrize("n", [0, 3, 50])
def test_identity_decides_whatever_the_references_say(identity, n):
    found = decide(-5.0, null(n), 0.05, identity)
    assert (found.verdict, found.basis, found.references_needed) == ("reused", "identity", None)
    assert "same" in found.reason


def test_a_score_far_above_all_references_is_decided_by_the_tail():
    found = decide(20.0, null(24), alpha=0.01)
    assert found.p_value == pytest.approx(1 / 25)
    assert (found.verdict, found.basis) == ("reused", "tail")
    assert found.decisive_p_value == found.tail.floor
    assert found.tail.method in found.reason


@pytest.mark.parametrize(("n", "n_suspects", "stated"), [(24, 1, "0.04"), (99, 3, "0.03")])
def test_a_reason_by_rank_states_what_the_rank_says_not_the_tail(n, n_suspects, stated):
    alone = decide(20.0, null(n), alpha=0.05)
    found = decide_among(alone, min(1.0, n_suspects * alone.decisive_p_value), 0.05, n_suspects)
    assert (found.verdict, found.basis) == ("reused", "rank")
    assert f"probability {stated} at most" in found.reason


def test_the_tail_never_speaks_against_a_rank():
    found = decide(5.0, [*null(24), 6.0], alpha=0.05)
    assert found.tail.bounded < found.p_value
    assert found.decisive_p_value == found.p_value == pytest.approx(2 / 26)


@pytest.mark.parametrize("n_suspects", [2, 13, 50])
def test_copies_among_many_suspects_are_found_with_two_dozen_references(n_suspects):
    alone = [decide(15.0, null(24), 0.05) for _ in range(n_suspects)]
    adjusted = adjust_p_values([d.decisive_p_value for d in alone])
    found = [decide_among(d, p, 0.05, n_suspects) for d, p in zip(alone, adjusted, strict=True)]
    assert {(d.verdict, d.basis) for d in found} == {("reused", "tail")}


def test_below_the_tails_floor_more_references_are_asked_for():
    found = decide_among(decide(15.0, null(24), 0.05), 0.2, 0.05, 200)
    assert found.verdict == "inconclusive"
    assert found.references_needed == references_needed(0.05 / 200)
    assert str(found.references_needed) in found.reason


@pytest.mark.parametrize(
    ("n", "n_at_least", "verdict"),
    [
        (24, 0, "inconclusive"),  # nothing unrelated scores as high, and no rank can say it
        (24, 1, "no_evidence"),  # not unusual even alone: 2 / 25
        (24, 12, "no_evidence"),
        (39, 1, "inconclusive"),  # alone it would be unusual: 2 / 40
        (300, 2, "no_evidence"),  # 259 references can decide among 13, and do
        (10, 5, "inconclusive"),  # too few to decide on one
    ],
)
def test_among_thirteen_suspects(n, n_at_least, verdict):
    scores = sorted(RNG.normal(size=n))
    # between two references' scores: so many of them are at least as high, and none by far
    score = scores[-n_at_least] - 1e-9 if n_at_least else scores[-1] + 0.1
    alone = decide(score, scores, 0.05)
    assert alone.n_at_least == n_at_least
    found = decide_among(alone, min(1.0, 13 * alone.decisive_p_value), 0.05, 13)
    assert found.verdict == verdict
