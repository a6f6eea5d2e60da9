"""Trees of descent, on models made of random features under random heads."""

import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.descent import EDGE_WEIGHTS, edge_features, infer_descent

N, INPUTS, HIDDEN, WIDTH = 60, 8, 40, 24


def stranger(rng):
    return [rng.normal(size=(INPUTS, HIDDEN)), rng.normal(size=(HIDDEN, WIDTH)) / 3]


def child(rng, parent, moved):
    return [part + moved * part.std() * rng.normal(size=part.shape) for part in parent]


def answers(body, head, x):
    return np.tanh(np.tanh(x @ body[0]) @ body[1]) @ head


def asked(bodies, tasks, seed=0):
    """All models' answers to each one's pairs, and tasks. Partners are random moves, another set for each model."""
    rng = np.random.default_rng(seed)
    heads = {task: rng.normal(size=(WIDTH, classes)) for task, classes in (("rich", 12), ("poor", 6))}
    x = rng.normal(size=(N, INPUTS))

    def ask(inputs):
        return [answers(body, heads[task], inputs) for body, task in zip(bodies, tasks, strict=True)]

    seeds = ask(x)
    return [(seeds, ask(x + 0.3 * rng.normal(size=x.shape))) for _ in bodies], tasks


@pytest.fixture(scope="module")
def family():
    """0 a parent, 1 to 4 its children, 5 to 8 strangers; all of one task."""
    rng = np.random.default_rng(1)
    parent = stranger(rng)
    bodies = [parent, *(child(rng, parent, 0.15) for _ in range(4)), *(stranger(rng) for _ in range(4))]
    return asked(bodies, ["poor"] * 9)


def test_families_are_told_from_strangers(family):
    found = infer_descent(*family)
    assert (found.parents[5:] == -1).all()
    inside = found.edges[:5, :5].sum() / 4
    assert inside > 0.9
    assert found.edges[5:, :5].sum() < 1
    assert (found.edges[:, 5:].sum(axis=0) < 0.75).all()


def test_children_hang_on_their_parent_not_on_one_another(family):
    found = infer_descent(*family)
    ends = {frozenset((int(i), j)) for j, i in enumerate(found.parents[:5]) if i >= 0}
    assert ends == {frozenset((0, j)) for j in range(1, 5)}


def test_the_richer_task_comes_first():
    rng = np.random.default_rng(2)
    root = stranger(rng)
    bodies = [child(rng, root, 0.05), root, stranger(rng), stranger(rng)]
    found = infer_descent(*asked(bodies, ["poor", "rich", "poor", "rich"]))
    assert found.edges[1, 0] > 5 * found.edges[0, 1]


def test_probabilities_of_a_model_add_up_and_support_is_of_what_is_said(family):
    found = infer_descent(*family)
    none = 1 - found.edges.sum(axis=0)
    assert none.min() > -1e-9
    for j, (parent, support) in enumerate(zip(found.parents, found.support, strict=True)):
        assert support == pytest.approx(none[j] if parent < 0 else found.edges[parent, j])


def test_order_does_not_matter():
    rng = np.random.default_rng(3)
    parent = stranger(rng)
    bodies = [parent, child(rng, parent, 0.1), stranger(rng), stranger(rng)]
    given, tasks = asked(bodies, ["poor", "poor", "poor", "rich"])
    order = [2, 0, 3, 1]
    turned = [tuple([side[i] for i in order] for side in given[one]) for one in order]
    straight = edge_features(given, tasks)
    for name, table in edge_features(turned, [tasks[i] for i in order]).items():
        np.testing.assert_allclose(table, straight[name][np.ix_(order, order)], atol=1e-5, err_msg=name)


def test_every_clue_has_its_weight(family):
    assert set(EDGE_WEIGHTS) == set(edge_features(*family))


def test_probabilities_say_what_logits_say(family):
    given, tasks = family
    shares = [
        tuple([np.exp(x - np.logaddexp.reduce(x, axis=1, keepdims=True)) for x in side] for side in pair)
        for pair in given
    ]
    told, meant = edge_features(shares, tasks), edge_features(given, tasks)
    for name in ("logits", "probabilities", "geometry", "entropy"):
        np.testing.assert_allclose(told[name], meant[name], atol=0.05, err_msg=name)


@pytest.mark.parametrize(
    ("pairs", "tasks", "rule"),
    [
        ([], [], "Each model"),
        ([([np.zeros((3, 2))], [])], ["a"], "Each model"),
        ([([np.zeros((3, 2)), np.zeros((3, 4))],) * 2] * 2, ["a", "a"], "as many outputs"),
    ],
)
def test_refuses_what_does_not_fit_together(pairs, tasks, rule):
    with pytest.raises(InvalidInputError, match=rule):
        edge_features(pairs, tasks)
