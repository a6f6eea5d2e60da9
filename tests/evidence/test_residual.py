"""Similarity of residuals."""

import numpy as np
import pytest

from modeldiff_jax.evidence.residual import gram, residual_similarity

RNG = np.random.default_rng(0)
REFERENCES = np.arange(24) >= 4


def directly(x, tasks, references, shrinkage):
    """The definition, with vectors instead of inner products."""
    x, tasks = x.astype(float).copy(), np.array(tasks)
    for task in set(tasks.tolist()):
        x[tasks == task] -= x[references & (tasks == task)].mean(axis=0)
    pool = x[references]
    covariance = pool.T @ pool / len(pool)
    floor = shrinkage * np.trace(covariance) / len(pool)
    values, vectors = np.linalg.eigh(covariance)
    x = x @ vectors * np.sqrt(floor / (np.maximum(values, 0) + floor))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x @ x.T


@pytest.mark.parametrize("shrinkage", [0.05, 1.0, 100.0])
@pytest.mark.parametrize("width", [6, 40])
def test_inner_products_give_what_the_vectors_give(width, shrinkage):
    x = RNG.normal(size=(24, width)) + 5
    tasks = ["a", "b"] * 12
    found = residual_similarity(gram(x), tasks, REFERENCES, shrinkage)
    np.testing.assert_allclose(found, directly(x, tasks, REFERENCES, shrinkage), atol=1e-8)


def test_what_all_models_of_a_task_share_does_not_count():
    shared, own = RNG.normal(size=300), RNG.normal(size=(24, 300))
    tasks = [0] * 24
    alike = residual_similarity(gram(10 * shared + own), tasks, REFERENCES)
    np.testing.assert_allclose(alike, residual_similarity(gram(own), tasks, REFERENCES), atol=1e-8)
    assert abs(alike[0, 1]) < 0.3


def test_a_direction_in_which_strangers_differ_counts_less_than_one_of_their_own():
    x = RNG.normal(size=(24, 300))
    usual, rare = np.eye(300)[:2] * 40
    x[REFERENCES] += np.outer(RNG.normal(size=20), usual)
    x[:2] += usual
    x[2:4] += rare
    near = residual_similarity(gram(x), [0] * 24, REFERENCES)
    assert near[0, 1] < 0.6 < 0.8 < near[2, 3]


def test_too_few_references_of_a_task_borrow_the_mean_of_all():
    x = RNG.normal(size=(24, 30))
    tasks = ["alone", *["many"] * 23]
    moved = x.copy()
    moved[0] += 3
    found = [residual_similarity(gram(v), tasks, REFERENCES)[0, 1] for v in (x, moved)]
    assert abs(found[0] - found[1]) > 1e-3  # not centred on itself
