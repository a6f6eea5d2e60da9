"""Forests, against an enumeration of all of them."""

from itertools import product

import numpy as np
import pytest

from modeldiff_jax.evidence.arborescence import edge_probabilities, maximum_forest


def forests(m):
    """Yields all choices of parents without a cycle."""
    for parents in product(range(-1, m), repeat=m):
        if all(reaches_a_root(parents, i) for i in range(m)):
            yield np.array(parents)


def reaches_a_root(parents, node):
    for _ in parents:
        node = parents[node]
        if node < 0:
            return True
    return False


def total(parents, edges, roots):
    return sum(roots[j] if i < 0 else edges[i, j] for j, i in enumerate(parents))


@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(8))
def test_the_best_forest_and_the_probability_of_each_edge(m, seed):
    rng = np.random.default_rng([seed, m])
    edges, roots = 3 * rng.normal(size=(m, m)), rng.normal(size=m)
    all_forests = list(forests(m))
    assert len(all_forests) == (m + 1) ** (m - 1)  # Cayley's formula
    totals = np.array([total(parents, edges, roots) for parents in all_forests])
    np.testing.assert_array_equal(maximum_forest(edges, roots), all_forests[totals.argmax()])
    probability = np.exp(totals) / np.exp(totals).sum()
    edge_share, root_share = edge_probabilities(edges, roots)
    for j in range(m):
        assert root_share[j] == pytest.approx(probability[[parents[j] < 0 for parents in all_forests]].sum())
        for i in range(m):
            expected = probability[[parents[j] == i for parents in all_forests]].sum()
            assert edge_share[i, j] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("m", [30, 150])
def test_a_planted_forest_is_found_through_cycles_of_every_size(m):
    rng = np.random.default_rng(m)
    order = rng.permutation(m)
    planted = np.full(m, -1)
    for place in range(1, m):
        if rng.random() > 0.1:
            planted[order[place]] = order[rng.integers(place)]
    edges = rng.normal(size=(m, m)) - 8
    children = np.flatnonzero(planted >= 0)
    edges[planted[children], children] += 16
    edges[children, planted[children]] += 16  # edges in both directions make cycles attractive
    roots = np.where(planted < 0, 30.0, 0.0)
    parents = maximum_forest(edges, roots)
    assert all(reaches_a_root(parents, i) for i in range(m))
    assert total(parents, edges, roots) >= total(planted, edges, roots)
    np.testing.assert_array_equal(parents < 0, planted < 0)


def test_extreme_odds_give_finite_probabilities():
    edges = np.array([[0.0, 900.0, -900.0], [-900.0, 0.0, 900.0], [-900.0, -900.0, 0.0]])
    edge_share, root_share = edge_probabilities(edges, np.zeros(3))
    np.testing.assert_allclose(edge_share[[0, 1], [1, 2]], 1)
    np.testing.assert_allclose(root_share, [1, 0, 0], atol=1e-12)
