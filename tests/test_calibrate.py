"""Conformal p-values and verdicts."""

import numpy as np
import pytest

from modeldiff_jax.calibrate import conformal_p_value, judge, references_needed
from modeldiff_jax.errors import InvalidInputError


@pytest.mark.parametrize(
    ("score", "references", "expected"),
    [
        (0.9, [0.1, 0.2, 0.3], 1 / 4),
        (0.0, [0.1, 0.2, 0.3], 4 / 4),
        (0.2, [0.1, 0.2, 0.3], 3 / 4),  # a tie counts in the suspect's favour
        (0.9, [0.1] * 19, 1 / 20),
    ],
)
def test_p_value_is_the_rank_among_references(score, references, expected):
    assert conformal_p_value(score, references) == pytest.approx(expected)


def test_p_value_never_goes_below_one_in_n_plus_one():
    for n in (1, 5, 100):
        assert conformal_p_value(1e9, [0.0] * n) == pytest.approx(1 / (n + 1))


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_false_positive_rate_stays_below_alpha_for_exchangeable_scores(alpha):
    rng = np.random.default_rng(0)
    rejected = [conformal_p_value(s[0], list(s[1:])) <= alpha for s in rng.standard_cauchy((4000, 120))]
    # three standard errors above alpha
    assert np.mean(rejected) <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / 4000)


@pytest.mark.parametrize("alpha", [0.5, 0.1, 0.05, 0.01, 0.001, 1 / 3])
def test_references_needed_is_the_smallest_sufficient_number(alpha):
    n = references_needed(alpha)
    assert 1 / (n + 1) <= alpha + 1e-12
    assert n == 1 or 1 / n > alpha


@pytest.mark.parametrize(
    ("score", "n", "verdict", "p_value"),
    [
        (0.9, 0, "inconclusive", None),
        (0.9, 5, "inconclusive", 1 / 6),
        (0.9, 19, "reused", 1 / 20),
        (0.1, 19, "no_evidence", 1.0),
    ],
)
def test_verdict(score, n, verdict, p_value):
    judgement = judge(score, list(np.linspace(0.2, 0.5, n)), alpha=0.05)
    assert judgement.verdict == verdict
    assert judgement.p_value == (None if p_value is None else pytest.approx(p_value))


def test_without_references_the_reason_says_what_to_pass():
    assert "at least 19 unrelated models" in judge(0.99, [], alpha=0.05).reason
    assert "needs 99 or more" in judge(0.99, [0.1] * 20, alpha=0.01).reason


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, float("nan")])
def test_alpha_outside_the_open_unit_interval_is_refused(alpha):
    with pytest.raises(InvalidInputError, match="alpha"):
        judge(0.5, [0.1], alpha)


@pytest.mark.parametrize("scores", [(float("nan"), [0.1]), (0.5, [0.1, float("inf")]), (0.5, [])])
def test_scores_that_cannot_be_ranked_are_refused(scores):
    with pytest.raises(InvalidInputError):
        conformal_p_value(*scores)
