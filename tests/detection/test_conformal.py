"""Conformal p-values and verdicts."""

import numpy as np
import pytest
from scipy import stats

from modeldiff_jax.detection.conformal import adjusted, conformal_p_value, judge, references_needed
from modeldiff_jax.errors import InvalidInputError

own_error = pytest.mark.types_unchecked("the error is the product's own")


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


def test_benjamini_hochberg_agrees_with_scipy():
    p = np.random.default_rng(0).random(40) ** 2
    np.testing.assert_allclose(adjusted(p, "benjamini-hochberg"), stats.false_discovery_control(p))


def test_holm_rejects_what_its_steps_reject():
    p, alpha = [0.01, 0.04, 0.005, 0.03], 0.05
    # smallest against alpha / 4, next against alpha / 3, then 0.03 > alpha / 2 ends it
    assert [value <= alpha for value in adjusted(p, "holm")] == [True, False, True, False]
    assert adjusted(p, "holm") == pytest.approx([0.03, 0.06, 0.02, 0.06])


@pytest.mark.parametrize("correction", ["holm", "benjamini-hochberg"])
def test_adjusted_p_values_keep_order_and_are_no_smaller(correction):
    p = np.random.default_rng(1).random(30)
    found = np.array(adjusted(p, correction))
    assert (found >= p).all()
    assert (found <= 1).all()
    assert (np.diff(found[np.argsort(p)]) >= 0).all()
    assert adjusted([0.02], correction) == [0.02]
    assert adjusted([], correction) == []


@pytest.mark.parametrize(
    ("p", "correction"),
    [
        ([1.2], "holm"),
        ([float("nan")], "holm"),
        pytest.param([0.5], "bonferroni", marks=own_error),
    ],
)
def test_adjusted_refuses(p, correction):
    with pytest.raises(InvalidInputError):
        adjusted(p, correction)
