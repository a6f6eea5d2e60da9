"""Reactions restricted to an access level; a suspect that exposes little is still detected."""

import numpy as np
import pytest
from scipy.special import softmax

import modeldiff_jax as md
from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.access import check_access, infer_access, restrict

RNG = np.random.default_rng(0)
LOGITS = 3 * RNG.normal(size=(12, 6))
LEVELS = ("probabilities", "top-3", "labels")
WIDTH = 20


@pytest.mark.parametrize("access", LEVELS)
def test_logits_and_their_probabilities_are_restricted_alike(access):
    np.testing.assert_allclose(restrict(LOGITS, access), restrict(softmax(LOGITS, axis=1), access), atol=1e-12)
    np.testing.assert_allclose(restrict(LOGITS, access).sum(axis=1), 1)
    np.testing.assert_array_equal(restrict(LOGITS, access).argmax(axis=1), LOGITS.argmax(axis=1))


@pytest.mark.parametrize("access", LEVELS)
def test_restricting_twice_changes_nothing(access):
    once = restrict(LOGITS, access)
    np.testing.assert_allclose(restrict(once, access), once, atol=1e-12)


def test_probabilities_outside_the_greatest_share_the_rest():
    whole, restricted = softmax(LOGITS, axis=1), restrict(LOGITS, "top-2")
    top = np.argsort(-whole, axis=1)[:, :2]
    np.testing.assert_allclose(np.take_along_axis(restricted, top, 1), np.take_along_axis(whole, top, 1))
    assert all(len(np.unique(row.round(12))) == 3 for row in restricted)
    only_greatest = np.where(whole >= np.sort(whole, axis=1)[:, -2:-1], whole, 0)
    np.testing.assert_allclose(restrict(only_greatest, "top-2"), restricted, atol=1e-12)


def test_label_numbers_are_labels():
    numbers = LOGITS.argmax(axis=1)[:, None]
    np.testing.assert_array_equal(restrict(numbers, "labels", 6), restrict(LOGITS, "labels"))


@pytest.mark.parametrize(
    ("numbers", "access", "n_labels"),
    [([[0.5]], "labels", 6), ([[6]], "labels", 6), ([[-1]], "labels", 6), ([[1]], "labels", None), ([[1]], "top-2", 6)],
)
def test_numbers_that_are_not_labels_are_refused(numbers, access, n_labels):
    with pytest.raises(InvalidInputError, match="label"):
        restrict(np.array(numbers), access, n_labels)


@pytest.mark.parametrize("access", ["", "top-0", "top-", "logits", "top-1234567"])
def test_unknown_access_is_refused(access):
    with pytest.raises(InvalidInputError, match="Access"):
        check_access(access)


@pytest.mark.parametrize(
    ("reactions", "kind"),
    [
        (LOGITS, "outputs"),
        (softmax(LOGITS, axis=1), "outputs"),
        (np.maximum(LOGITS, 0), "outputs"),
        (np.eye(6)[LOGITS.argmax(axis=1)], "labels"),
        (LOGITS.argmax(axis=1)[:, None], "labels"),
        (LOGITS[:, :1], "outputs"),
        (np.where(np.sort(LOGITS, axis=1)[:, -2:-1] <= LOGITS, softmax(LOGITS, axis=1), 0), "top-2"),
        (np.eye(6)[LOGITS.argmax(axis=1)] * 0.05, "outputs"),
    ],
)
def test_labels_and_the_greatest_few_are_recognised(reactions, kind):
    assert infer_access(reactions) == kind


def network(rng, parent=None):
    parts = [rng.normal(size=(12, 40)), rng.normal(size=(40, WIDTH)) / 4, TASK]
    if parent is not None:
        parts = [old + 0.05 * old.std() * rng.normal(size=old.shape) for old in parent]
    return parts


TASK = np.random.default_rng(9).normal(size=(WIDTH, 6))


def function(parts, exposes):
    a, b, c = parts
    spec = md.TensorSpec("x", ("N", 12), np.dtype(np.float32))
    return md.from_callable(lambda x: exposes(np.tanh(np.tanh(x @ a) @ b) @ c).astype(np.float32), spec)


EXPOSES = {
    "outputs": lambda x: x,
    "probabilities": lambda x: softmax(x, axis=1),
    "top-3": lambda x: restrict(x, "top-3"),
    "labels": lambda x: x.argmax(axis=1)[:, None],
}


@pytest.mark.parametrize("access", EXPOSES)
def test_a_copy_that_exposes_little_is_detected(access):
    rng = np.random.default_rng(1)
    owner = network(rng)
    references = [function(network(rng), EXPOSES["outputs"]) for _ in range(19)]
    arguments = settings(references) | {"access": access}
    target = function(owner, EXPOSES["outputs"])
    comparison = md.compare(target, function(network(rng, owner), EXPOSES[access]), **arguments)
    assert comparison.verdict == "reused"
    assert comparison.to_dict()["access"] == access
    assert len(comparison.orientations) == (2 if access == "outputs" else 1)
    screening = md.screen(target, [function(network(rng), EXPOSES[access])], **arguments)
    assert screening.findings[0].ranking.score < comparison.ranking.score


def settings(references):
    seeds = np.random.default_rng(2).uniform(-1, 1, size=(60, 12)).astype(np.float32)
    return {"seeds": seeds, "n_pairs": 60, "n_steps": 3, "references": references}


def features(parts):
    a, b, _ = parts
    spec = md.TensorSpec("x", ("N", 12), np.dtype(np.float32))
    return md.from_callable(lambda x: np.tanh(np.tanh(x @ a) @ b), spec)


def heads(parts):
    a, b, c = parts
    spec = md.TensorSpec("x", ("N", 12), np.dtype(np.float32))

    def both(x):
        hidden = np.tanh(np.tanh(x @ a) @ b)
        return hidden @ c, hidden[:, :7]

    return md.from_callable(both, spec)


@pytest.mark.parametrize(
    ("target_outputs", "suspect_outputs"), [("outputs", features), (features, features), (heads, heads)]
)
def test_models_without_a_label_space_and_of_several_outputs(target_outputs, suspect_outputs):
    rng = np.random.default_rng(1)
    owner = network(rng)
    same_label_space = callable(target_outputs)
    target = target_outputs(owner) if same_label_space else function(owner, EXPOSES[target_outputs])
    arguments = settings([suspect_outputs(network(rng)) for _ in range(19)])
    comparison = md.compare(target, suspect_outputs(network(rng, owner)), **arguments)
    assert comparison.verdict == "reused"
    assert ("logits" in comparison.evidence) == same_label_space
    assert md.compare(target, suspect_outputs(network(rng)), **arguments).ranking.score < comparison.ranking.score


@pytest.mark.parametrize("exposes", ["labels", lambda x: np.eye(6)[x.argmax(axis=1)]])
def test_labels_that_are_not_declared_are_noted(exposes):
    rng = np.random.default_rng(1)
    owner = network(rng)
    arguments = settings([function(network(rng), EXPOSES["outputs"]) for _ in range(3)])
    suspect = function(owner, EXPOSES[exposes] if isinstance(exposes, str) else exposes)
    undeclared = md.compare(function(owner, EXPOSES["outputs"]), suspect, **arguments)
    declared = md.compare(function(owner, EXPOSES["outputs"]), suspect, access="labels", **arguments)
    assert [sum("consistent with labels alone" in note for note in r.notes) for r in (undeclared, declared)] == [1, 0]
