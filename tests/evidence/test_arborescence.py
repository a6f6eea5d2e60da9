"""Forests, against all of them written out."""

from itertools import product

import numpy as np
import pytest

from modeldiff_jax.evidence.arborescence import edge_probabilities, maximum_forest


def forests(m):
    """All choices of parents without a circle."""
    for parents in product(range(-1, m), repeat=m):
        if all(ends(parents, i) for i in range(m)):
            yield np.array(parents)


def ends(parents, node):
    for _ in parents:
        node = parents[node]
        if node < 0:
            return True
    return False


def total(parents, edges, roots):
    return sum(roots[j] if i < 0 else edges[i, j] for j, i in enumerate(parents))


@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(8))
def test_the_best_forest_and_the_share_of_each_edge(m, seed):
    rng = np.random.default_rng([seed, m])
    edges, roots = 3 * rng.normal(size=(m, m)), rng.normal(size=m)
    every = list(forests(m))
    assert len(every) == (m + 1) ** (m - 1)  # Cayley's formula
    totals = np.array([total(parents, edges, roots) for parents in every])
    np.testing.assert_array_equal(maximum_forest(edges, roots), every[totals.argmax()])
    share = np.exp(totals) / np.exp(totals).sum()
    found, none = edge_probabilities(edges, roots)
    for j in range(m):
        assert none[j] == pytest.approx(share[[parents[j] < 0 for parents in every]].sum())
        for i in range(m):
            assert found[i, j] == pytest.approx(share[[parents[j] == i for parents in every]].sum(), abs=1e-12)


@pytest.mark.parametrize("m", [30, 150])
def test_a_planted_forest_is_found_through_circles_of_every_size(m):
    rng = np.random.default_rng(m)
    order = rng.permutation(m)
    planted = np.full(m, -1)
    for place in range(1, m):
        if rng.random() > 0.1:
            planted[order[place]] = order[rng.integers(place)]
    edges = rng.normal(size=(m, m)) - 8
    children = np.flatnonzero(planted >= 0)
    edges[planted[children], children] += 16
    edges[children, planted[children]] += 16  # the way back tempts into a circle
    roots = np.where(planted < 0, 30.0, 0.0)
    found = maximum_forest(edges, roots)
    assert all(ends(found, i) for i in range(m))
    assert total(found, edges, roots) >= total(planted, edges, roots)
    np.testing.assert_array_equal(found < 0, planted < 0)


def test_odds_of_any_size_stay_numbers():
    edges = np.array([[0.0, 900.0, -900.0], [-900.0, 0.0, 900.0], [-900.0, -900.0, 0.0]])
    found, none = edge_probabilities(edges, np.zeros(3))
    np.testing.assert_allclose(found[[0, 1], [1, 2]], 1)
    np.testing.assert_allclose(none, [1, 0, 0], atol=1e-12)
