"""A suspect among references: exchangeable with them, and compared by the views that fit."""

import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.reactions import Reactions
from modeldiff_jax.evidence.reference_scores import score_against_references
from modeldiff_jax.evidence.representations import as_logits

N = 40


def answers(rng, classes=6):
    x = np.random.default_rng(99).normal(size=(2, N, 8))
    body, head = rng.normal(size=(8, 24)), rng.normal(size=(24, classes))
    return Reactions.of(*(np.tanh(x @ body) @ head))


def test_a_suspect_and_a_reference_may_change_places():
    models = [answers(np.random.default_rng(i)) for i in range(14)]
    target, suspect, *others = models
    found = score_against_references(target, suspect, others)
    swapped = score_against_references(target, others[3], [*others[:3], suspect, *others[4:]])
    for name, score in found.suspect.items():
        assert swapped.references[name][3] == pytest.approx(score, rel=1e-6)
        assert swapped.suspect[name] == pytest.approx(found.references[name][3], rel=1e-6)


def test_views_of_one_label_space_are_left_out_between_two():
    rng = np.random.default_rng(0)
    references = [answers(rng) for _ in range(10)]
    found = score_against_references(answers(rng), answers(rng, 9), references)
    assert found.suspect.keys() == {"ddv", "geometry", "related"}
    assert np.isfinite(found.references["related"]).all()


@pytest.mark.parametrize("classes", [1, 2])
def test_few_outputs_are_compared_too(classes):
    rng = np.random.default_rng(0)
    target, *others = (answers(rng, classes) for _ in range(13))
    noise = Reactions.of(target.seeds + 1e-3 * rng.normal(size=(N, classes)), target.partners)
    found = score_against_references(target, noise, others)
    assert found.suspect["related"] > found.references["related"].max()


def test_long_reactions_are_thinned_alike():
    rng = np.random.default_rng(0)
    seeds, partners = rng.normal(size=(2, 3, 5000))
    kept = Reactions.of(seeds, partners)
    assert kept.n_outputs == 5000
    assert kept.seeds.shape == kept.partners.shape == (3, 2048)
    assert np.isin(kept.seeds, seeds).all()


def test_probabilities_become_logits_and_logits_stay():
    logits = np.random.default_rng(0).normal(size=(4, 7))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(as_logits(probabilities), logits - logits.mean(axis=1, keepdims=True), atol=1e-9)
    assert as_logits(logits) is logits


def test_too_few_references_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(InvalidInputError, match="references"):
        score_against_references(answers(rng), answers(rng), [answers(rng) for _ in range(3)])
