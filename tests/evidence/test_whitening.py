"""Similarity of residuals."""

import numpy as np
import pytest

from modeldiff_jax.evidence.whitening import SHRINKAGE, WithinClassWhitening, gram

RNG = np.random.default_rng(0)
REFERENCES = np.arange(24) >= 4


def residual_similarity(products, tasks, references, one, shrinkage=SHRINKAGE):
    return WithinClassWhitening(products, tasks, references, shrinkage).similarities([one])[0]


def directly(x, tasks, references, shrinkage, left_out=None):
    """The definition, with vectors instead of inner products; the ridge is that of all references."""
    x, tasks = x.astype(float).copy(), np.array(tasks)
    ridge = shrinkage * scatter(x, tasks, references)[1] / references.sum()
    references = references & (np.arange(len(x)) != left_out)
    for task in set(tasks.tolist()):
        x[tasks == task] -= x[references & (tasks == task)].mean(axis=0)
    values, vectors = np.linalg.eigh(x[references].T @ x[references])
    x = x @ vectors / np.sqrt(np.maximum(values, 0) + ridge)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x @ x[0]


def scatter(x, tasks, references):
    """Sum of the references' squares about their task's mean, as a matrix and its trace."""
    x = x.copy()
    for task in set(tasks.tolist()):
        x[tasks == task] -= x[references & (tasks == task)].mean(axis=0)
    return x[references].T @ x[references], np.sum(x[references] ** 2)


@pytest.mark.parametrize("shrinkage", [0.05, 1.0, 100.0])
@pytest.mark.parametrize("width", [6, 40])
def test_inner_products_give_what_the_vectors_give(width, shrinkage):
    x = RNG.normal(size=(24, width)) + 5
    tasks = ["a", "b"] * 12
    found = residual_similarity(gram(x), tasks, REFERENCES, 0, shrinkage)
    for other in range(24):
        want = directly(x, tasks, REFERENCES, shrinkage, other)[other]  # a reference is none for itself
        assert found[other] == pytest.approx(want, abs=1e-8)


def test_what_all_models_of_a_task_share_does_not_count():
    shared, own = RNG.normal(size=300), RNG.normal(size=(24, 300))
    alike, apart = (residual_similarity(gram(x), [0] * 24, REFERENCES, 0) for x in (10 * shared + own, own))
    np.testing.assert_allclose(alike, apart, atol=1e-8)
    assert abs(alike[1]) < 0.3


def test_references_look_like_strangers():
    found = [residual_similarity(gram(RNG.normal(size=(24, 60))), [0] * 24, REFERENCES, 0) for _ in range(60)]
    strangers, references = np.array(found)[:, 1:4].std(), np.array(found)[:, 4:].std()
    assert 0.85 < references / strangers < 1.15
    assert abs(np.array(found)[:, 4:].mean() - np.array(found)[:, 1:4].mean()) < 0.05


def test_a_direction_in_which_strangers_differ_counts_less_than_one_of_their_own():
    x = RNG.normal(size=(24, 300))
    usual, rare = np.eye(300)[:2] * 40
    x[REFERENCES] += np.outer(RNG.normal(size=20), usual)
    x[:2] += usual
    x[2:4] += rare
    assert residual_similarity(gram(x), [0] * 24, REFERENCES, 0)[1] < 0.6
    assert residual_similarity(gram(x), [0] * 24, REFERENCES, 2)[3] > 0.8


def test_too_few_references_of_a_task_borrow_the_mean_of_all():
    x = RNG.normal(size=(24, 30))
    tasks = ["alone", *["many"] * 23]
    moved = x.copy()
    moved[0] += 3
    found = [residual_similarity(gram(v), tasks, REFERENCES, 0)[1] for v in (x, moved)]
    assert abs(found[0] - found[1]) > 1e-3  # not centred on itself
