"""Inferred descent, on models made of random features under random heads."""

import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.descent import EDGE_WEIGHTS, edge_features, infer_descent

N, INPUTS, HIDDEN, WIDTH = 60, 8, 40, 24


def unrelated(rng):
    return [rng.normal(size=(INPUTS, HIDDEN)), rng.normal(size=(HIDDEN, WIDTH)) / 3]


def child(rng, parent, moved):
    return [part + moved * part.std() * rng.normal(size=part.shape) for part in parent]


def react(body, head, x):
    return np.tanh(np.tanh(x @ body[0]) @ body[1]) @ head


def reactions_to_each_other(bodies, label_spaces, seed=0):
    """Returns all models' reactions to each model's pairs, and label spaces. Each model has other random partners."""
    rng = np.random.default_rng(seed)
    heads = {space: rng.normal(size=(WIDTH, classes)) for space, classes in (("rich", 12), ("poor", 6))}
    x = rng.normal(size=(N, INPUTS))

    def react_all(inputs):
        return [react(body, heads[space], inputs) for body, space in zip(bodies, label_spaces, strict=True)]

    seeds = react_all(x)
    return [(seeds, react_all(x + 0.3 * rng.normal(size=x.shape))) for _ in bodies], label_spaces


@pytest.fixture(scope="module")
def relatives():
    """0 a parent, 1 to 4 its children, 5 to 8 unrelated models; all of one label space."""
    rng = np.random.default_rng(1)
    parent = unrelated(rng)
    bodies = [parent, *(child(rng, parent, 0.15) for _ in range(4)), *(unrelated(rng) for _ in range(4))]
    return reactions_to_each_other(bodies, ["poor"] * 9)


def test_relatives_are_distinguished_from_unrelated_models(relatives):
    descent = infer_descent(*relatives)
    assert (descent.parents[5:] == -1).all()
    assert descent.edges[:5, :5].sum() / 4 > 0.9
    assert descent.edges[5:, :5].sum() < 1
    assert (descent.edges[:, 5:].sum(axis=0) < 0.75).all()


def test_children_are_joined_to_their_parent_and_not_to_siblings(relatives):
    descent = infer_descent(*relatives)
    edges = {frozenset((int(i), j)) for j, i in enumerate(descent.parents[:5]) if i >= 0}
    assert edges == {frozenset((0, j)) for j in range(1, 5)}


def test_the_model_with_more_classes_is_the_parent():
    rng = np.random.default_rng(2)
    root = unrelated(rng)
    bodies = [child(rng, root, 0.05), root, unrelated(rng), unrelated(rng)]
    descent = infer_descent(*reactions_to_each_other(bodies, ["poor", "rich", "poor", "rich"]))
    assert descent.edges[1, 0] > 5 * descent.edges[0, 1]


def test_probabilities_of_a_models_parents_add_up_and_support_is_that_of_the_parent_given(relatives):
    descent = infer_descent(*relatives)
    no_parent = 1 - descent.edges.sum(axis=0)
    assert no_parent.min() > -1e-9
    for j, (parent, support) in enumerate(zip(descent.parents, descent.support, strict=True)):
        assert support == pytest.approx(no_parent[j] if parent < 0 else descent.edges[parent, j])


def test_order_does_not_matter():
    rng = np.random.default_rng(3)
    parent = unrelated(rng)
    bodies = [parent, child(rng, parent, 0.1), unrelated(rng), unrelated(rng)]
    pairs, label_spaces = reactions_to_each_other(bodies, ["poor", "poor", "poor", "rich"])
    order = [2, 0, 3, 1]
    permuted = [tuple([side[i] for i in order] for side in pairs[maker]) for maker in order]
    expected = edge_features(pairs, label_spaces)
    for name, table in edge_features(permuted, [label_spaces[i] for i in order]).items():
        np.testing.assert_allclose(table, expected[name][np.ix_(order, order)], atol=1e-5, err_msg=name)


def test_every_edge_feature_has_a_weight(relatives):
    assert set(EDGE_WEIGHTS) == set(edge_features(*relatives))


def test_probabilities_and_logits_give_the_same_features(relatives):
    pairs, label_spaces = relatives
    probabilities = [
        tuple([np.exp(x - np.logaddexp.reduce(x, axis=1, keepdims=True)) for x in side] for side in pair)
        for pair in pairs
    ]
    features, expected = edge_features(probabilities, label_spaces), edge_features(pairs, label_spaces)
    for name in ("logits", "probabilities", "geometry", "entropy"):
        np.testing.assert_allclose(features[name], expected[name], atol=0.05, err_msg=name)


@pytest.mark.parametrize(
    ("pairs", "label_spaces", "rule"),
    [
        ([], [], "Each model"),
        ([([np.zeros((3, 2))], [])], ["a"], "Each model"),
        ([([np.zeros((3, 2)), np.zeros((3, 4))],) * 2] * 2, ["a", "a"], "equally many outputs"),
    ],
)
def test_reactions_that_do_not_fit_together_are_refused(pairs, label_spaces, rule):
    with pytest.raises(InvalidInputError, match=rule):
        edge_features(pairs, label_spaces)
