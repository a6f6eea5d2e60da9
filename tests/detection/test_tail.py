"""The modelled tail: its form, and its error rate on new scores."""

import numpy as np
import pytest
from scipy import stats

from modeldiff_jax.detection.tail import FEWEST, FLOOR, modelled_tail


def test_it_is_the_survival_function_of_a_gumbel_distribution_of_the_references_moments():
    references = np.random.default_rng(0).gumbel(size=40)
    tail = modelled_tail(7.0, references.tolist())
    scale = references.std(ddof=1) * np.sqrt(6) / np.pi
    expected = stats.gumbel_r(references.mean() - np.euler_gamma * scale, scale).sf(7.0)
    assert tail.p_value == pytest.approx(expected, rel=1e-9)


def test_it_falls_with_the_score_and_stays_a_probability():
    references = np.random.default_rng(0).normal(size=30).tolist()
    p = [modelled_tail(score, references).p_value for score in (-1e6, -3, 0, 1, 3, 10, 1e6)]
    assert all(0 <= value <= 1 for value in p)
    assert p == sorted(p, reverse=True)
    assert modelled_tail(1e6, references).bounded == FLOOR


@pytest.mark.parametrize("references", [[], [1.0], [*map(float, range(FEWEST - 1))], [0.5] * 40])
def test_there_is_no_tail_without_enough_scores_that_vary(references):
    assert modelled_tail(3.0, references) is None


@pytest.mark.parametrize("n", [19, 24, 49])
@pytest.mark.parametrize("alpha", [0.01, 0.001])
@pytest.mark.parametrize("draw", ["normal", "sum of the two greatest of four"])
def test_unrelated_scores_are_seldom_called_unusual(draw, alpha, n):
    rng = np.random.default_rng(1)
    z = rng.normal(size=(20_000, n + 1, 4))
    scores = z[..., 0] if draw == "normal" else np.sort(z, axis=-1)[..., -2:].sum(-1)
    suspect, references = scores[:, 0], scores[:, 1:]
    beyond = suspect > references.max(axis=1)  # only there the tail counts
    unusual = [
        modelled_tail(float(suspect[i]), references[i].tolist()).p_value <= alpha for i in np.flatnonzero(beyond)
    ]
    rate = np.sum(unusual) / len(scores)
    assert rate <= alpha + 3 * np.sqrt(alpha / len(scores))
