"""Similarity of whitened vectors, against its definition."""

import numpy as np
import pytest

from modeldiff_jax.evidence.whitening import SHRINKAGE, WithinClassWhitening, gram

RNG = np.random.default_rng(0)
REFERENCES = np.arange(24) >= 4


def similarities(products, label_spaces, references, target, shrinkage=SHRINKAGE):
    return WithinClassWhitening(products, label_spaces, references, shrinkage).similarities([target])[0]


def by_definition(x, label_spaces, references, shrinkage, left_out=None):
    """Computes the definition with vectors instead of inner products; the ridge is that of all references."""
    x, label_spaces = x.astype(float).copy(), np.array(label_spaces)
    ridge = shrinkage * scatter(x, label_spaces, references)[1] / references.sum()
    references = references & (np.arange(len(x)) != left_out)
    for space in set(label_spaces.tolist()):
        x[label_spaces == space] -= x[references & (label_spaces == space)].mean(axis=0)
    values, vectors = np.linalg.eigh(x[references].T @ x[references])
    x = x @ vectors / np.sqrt(np.maximum(values, 0) + ridge)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x @ x[0]


def scatter(x, label_spaces, references):
    """Returns the sum of the references' squares about their label space's mean, as a matrix and its trace."""
    x = x.copy()
    for space in set(label_spaces.tolist()):
        x[label_spaces == space] -= x[references & (label_spaces == space)].mean(axis=0)
    return x[references].T @ x[references], np.sum(x[references] ** 2)


@pytest.mark.parametrize("shrinkage", [0.05, 1.0, 100.0])
@pytest.mark.parametrize("width", [6, 40])
def test_inner_products_give_the_result_of_the_vectors(width, shrinkage):
    x = RNG.normal(size=(24, width)) + 5
    label_spaces = ["a", "b"] * 12
    rows = similarities(gram(x), label_spaces, REFERENCES, 0, shrinkage)
    for other in range(24):
        expected = by_definition(x, label_spaces, REFERENCES, shrinkage, left_out=other)[other]
        assert rows[other] == pytest.approx(expected, abs=1e-8)


def test_a_vector_that_all_models_of_a_label_space_share_does_not_count():
    shared, individual = RNG.normal(size=300), RNG.normal(size=(24, 300))
    with_shared, without = (
        similarities(gram(x), [0] * 24, REFERENCES, 0) for x in (10 * shared + individual, individual)
    )
    np.testing.assert_allclose(with_shared, without, atol=1e-8)
    assert abs(with_shared[1]) < 0.3


def test_references_and_other_unrelated_models_are_distributed_alike():
    rows = np.array([similarities(gram(RNG.normal(size=(24, 60))), [0] * 24, REFERENCES, 0) for _ in range(60)])
    unrelated, references = rows[:, 1:4], rows[:, 4:]
    assert 0.85 < references.std() / unrelated.std() < 1.15
    assert abs(references.mean() - unrelated.mean()) < 0.05


def test_a_direction_in_which_unrelated_models_differ_counts_less_than_a_rare_one():
    x = RNG.normal(size=(24, 300))
    usual, rare = np.eye(300)[:2] * 40
    x[REFERENCES] += np.outer(RNG.normal(size=20), usual)
    x[:2] += usual
    x[2:4] += rare
    assert similarities(gram(x), [0] * 24, REFERENCES, 0)[1] < 0.6
    assert similarities(gram(x), [0] * 24, REFERENCES, 2)[3] > 0.8


def test_a_label_space_of_too_few_references_takes_the_mean_of_all():
    x = RNG.normal(size=(24, 30))
    label_spaces = ["alone", *["many"] * 23]
    moved = x.copy()
    moved[0] += 3
    before, after = (similarities(gram(v), label_spaces, REFERENCES, 0)[1] for v in (x, moved))
    assert abs(before - after) > 1e-3  # not centred on itself
