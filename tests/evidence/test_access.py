"""What is left of reactions under an access, and that a suspect which tells little is still found."""

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
def test_logits_and_their_probabilities_tell_the_same(access):
    np.testing.assert_allclose(restrict(LOGITS, access), restrict(softmax(LOGITS, axis=1), access), atol=1e-12)
    np.testing.assert_allclose(restrict(LOGITS, access).sum(axis=1), 1)
    np.testing.assert_array_equal(restrict(LOGITS, access).argmax(axis=1), LOGITS.argmax(axis=1))


@pytest.mark.parametrize("access", LEVELS)
def test_nothing_more_is_told_at_a_second_look(access):
    once = restrict(LOGITS, access)
    np.testing.assert_allclose(restrict(once, access), once, atol=1e-12)


def test_what_is_not_among_the_greatest_is_spread():
    whole, seen = softmax(LOGITS, axis=1), restrict(LOGITS, "top-2")
    top = np.argsort(-whole, axis=1)[:, :2]
    np.testing.assert_allclose(np.take_along_axis(seen, top, 1), np.take_along_axis(whole, top, 1))
    assert all(len(np.unique(row.round(12))) == 3 for row in seen)
    only_told = np.where(whole >= np.sort(whole, axis=1)[:, -2:-1], whole, 0)
    np.testing.assert_allclose(restrict(only_told, "top-2"), seen, atol=1e-12)


def test_numbers_of_labels_are_labels():
    numbers = LOGITS.argmax(axis=1)[:, None]
    np.testing.assert_array_equal(restrict(numbers, "labels", 6), restrict(LOGITS, "labels"))


@pytest.mark.parametrize(
    ("numbers", "access", "n_labels"),
    [([[0.5]], "labels", 6), ([[6]], "labels", 6), ([[-1]], "labels", 6), ([[1]], "labels", None), ([[1]], "top-2", 6)],
)
def test_what_is_no_label_is_refused(numbers, access, n_labels):
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
def test_labels_and_the_greatest_few_are_known_by_their_looks(reactions, kind):
    assert infer_access(reactions) == kind


def network(rng, parent=None):
    parts = [rng.normal(size=(12, 40)), rng.normal(size=(40, WIDTH)) / 4, TASK]
    if parent is not None:
        parts = [old + 0.05 * old.std() * rng.normal(size=old.shape) for old in parent]
    return parts


TASK = np.random.default_rng(9).normal(size=(WIDTH, 6))


def function(parts, tells):
    a, b, c = parts
    spec = md.TensorSpec("x", ("N", 12), np.dtype(np.float32))
    return md.from_callable(lambda x: tells(np.tanh(np.tanh(x @ a) @ b) @ c).astype(np.float32), spec)


TELLS = {
    "outputs": lambda x: x,
    "probabilities": lambda x: softmax(x, axis=1),
    "top-3": lambda x: restrict(x, "top-3"),
    "labels": lambda x: x.argmax(axis=1)[:, None],
}


@pytest.mark.parametrize("access", TELLS)
def test_a_copy_that_tells_little_is_found(access):
    rng = np.random.default_rng(1)
    owner = network(rng)
    references = [function(network(rng), TELLS["outputs"]) for _ in range(19)]
    asked = settings(references) | {"access": access}
    target = function(owner, TELLS["outputs"])
    found = md.compare(target, function(network(rng, owner), TELLS[access]), **asked)
    assert found.verdict == "reused"
    assert found.to_dict()["access"] == access
    assert len(found.orientations) == (2 if access == "outputs" else 1)
    screened = md.screen(target, [function(network(rng), TELLS[access])], **asked)
    assert screened.findings[0].ranking.score < found.ranking.score


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
        inside = np.tanh(np.tanh(x @ a) @ b)
        return inside @ c, inside[:, :7]

    return md.from_callable(both, spec)


@pytest.mark.parametrize(("owns", "gives"), [("outputs", features), (features, features), (heads, heads)])
def test_models_without_a_label_space_and_of_several_outputs(owns, gives):
    rng = np.random.default_rng(1)
    owner = network(rng)
    target = owns(owner) if callable(owns) else function(owner, TELLS[owns])
    asked = settings([gives(network(rng)) for _ in range(19)])
    found = md.compare(target, gives(network(rng, owner)), **asked)
    assert found.verdict == "reused"
    assert ("logits" in found.evidence) == callable(owns)  # representations of one label space need one
    assert md.compare(target, gives(network(rng)), **asked).ranking.score < found.ranking.score


@pytest.mark.parametrize("tells", ["labels", lambda x: np.eye(6)[x.argmax(axis=1)]])
def test_labels_that_are_not_declared_are_noted(tells):
    rng = np.random.default_rng(1)
    owner = network(rng)
    asked = settings([function(network(rng), TELLS["outputs"]) for _ in range(3)])
    suspect = function(owner, TELLS[tells] if isinstance(tells, str) else tells)
    silent = md.compare(function(owner, TELLS["outputs"]), suspect, **asked)
    said = md.compare(function(owner, TELLS["outputs"]), suspect, access="labels", **asked)
    assert [sum("consistent with labels alone" in note for note in r.notes) for r in (silent, said)] == [1, 0]
