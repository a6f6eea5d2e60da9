"""A suspect among references: exchangeable with them, and compared by applicable representations."""

import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.reactions import Reactions
from modeldiff_jax.evidence.reference_scores import score_against_references
from modeldiff_jax.evidence.representations import as_logits

N = 40


def random_reactions(rng, classes=6):
    x = np.random.default_rng(99).normal(size=(2, N, 8))
    body, head = rng.normal(size=(8, 24)), rng.normal(size=(24, classes))
    return Reactions.of(*(np.tanh(x @ body) @ head))


def test_a_suspect_and_a_reference_are_exchangeable():
    models = [random_reactions(np.random.default_rng(i)) for i in range(14)]
    target, suspect, *others = models
    scores = score_against_references(target, suspect, others)
    swapped = score_against_references(target, others[3], [*others[:3], suspect, *others[4:]])
    for name, score in scores.suspect.items():
        assert swapped.references[name][3] == pytest.approx(score, rel=1e-6)
        assert swapped.suspect[name] == pytest.approx(scores.references[name][3], rel=1e-6)


def test_representations_of_one_label_space_do_not_compare_two():
    rng = np.random.default_rng(0)
    references = [random_reactions(rng) for _ in range(10)]
    scores = score_against_references(random_reactions(rng), random_reactions(rng, 9), references)
    assert scores.suspect.keys() == {"ddv", "geometry", "related"}
    assert np.isfinite(scores.references["related"]).all()


@pytest.mark.parametrize("classes", [1, 2])
def test_few_outputs_are_compared_too(classes):
    rng = np.random.default_rng(0)
    target, *others = (random_reactions(rng, classes) for _ in range(13))
    noise = Reactions.of(target.seeds + 1e-3 * rng.normal(size=(N, classes)), target.partners)
    scores = score_against_references(target, noise, others)
    assert scores.suspect["related"] > scores.references["related"].max()


def test_long_reactions_keep_the_same_components():
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
        score_against_references(
            random_reactions(rng), random_reactions(rng), [random_reactions(rng) for _ in range(3)]
        )
