"""Conformal p-values and their adjustment."""

import numpy as np
import pytest
from scipy import stats

from modeldiff_jax.detection.conformal import adjust_p_values, conformal_p_value, references_needed
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


@pytest.mark.parametrize("scores", [(float("nan"), [0.1]), (0.5, [0.1, float("inf")]), (0.5, [])])
def test_scores_that_cannot_be_ranked_are_refused(scores):
    with pytest.raises(InvalidInputError):
        conformal_p_value(*scores)


def test_benjamini_hochberg_agrees_with_scipy():
    p = np.random.default_rng(0).random(40) ** 2
    np.testing.assert_allclose(adjust_p_values(p, "benjamini-hochberg"), stats.false_discovery_control(p))


def test_holm_rejects_by_its_steps():
    p, alpha = [0.01, 0.04, 0.005, 0.03], 0.05
    # smallest against alpha / 4, next against alpha / 3, then 0.03 > alpha / 2 ends it
    assert [value <= alpha for value in adjust_p_values(p, "holm")] == [True, False, True, False]
    assert adjust_p_values(p, "holm") == pytest.approx([0.03, 0.06, 0.02, 0.06])


@pytest.mark.parametrize("correction", ["holm", "benjamini-hochberg"])
def test_adjusted_p_values_keep_order_and_are_no_smaller(correction):
    p = np.random.default_rng(1).random(30)
    adjusted = np.array(adjust_p_values(p, correction))
    assert (adjusted >= p).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    assert adjust_p_values([0.02], correction) == [0.02]
    assert adjust_p_values([], correction) == []


@pytest.mark.parametrize(
    ("p", "correction"),
    [
        ([1.2], "holm"),
        ([float("nan")], "holm"),
        pytest.param([0.5], "bonferroni", marks=own_error),
    ],
)
def test_bad_p_values_and_corrections_are_refused(p, correction):
    with pytest.raises(InvalidInputError):
        adjust_p_values(p, correction)
