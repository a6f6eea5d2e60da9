"""Representations and their fusion, on models made of random features under random heads."""

import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.relatedness import ReactionTable, fuse, relatedness
from modeldiff_jax.evidence.representations import REPRESENTATIONS

N, WIDTH = 60, 24
REFERENCES = np.arange(30) >= 4


def body(rng):
    return rng.normal(size=(8, 40)), rng.normal(size=(40, WIDTH))


def reactions(body, head, x):
    return np.tanh(np.tanh(x @ body[0]) @ body[1]) @ head


@pytest.fixture(scope="module")
def models():
    """0 an owner; 1 its features under another head; 2 a noisy copy; 3 an unrelated model; the rest references."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 8))
    partners = x + 0.3 * rng.normal(size=(N, 8))
    heads = {space: rng.normal(size=(WIDTH, classes)) for space, classes in (("a", 6), ("b", 9))}
    owner = body(rng)
    models = [(owner, "a"), (owner, "b"), (owner, "a"), (body(rng), "a")]
    models += [(body(rng), "ab"[i % 2]) for i in range(26)]
    to_seeds = [reactions(b, heads[space], x) for b, space in models]
    to_partners = [reactions(b, heads[space], partners) for b, space in models]
    for side in (to_seeds, to_partners):
        side[2] = side[2] + 0.3 * rng.normal(size=side[2].shape)
    return ReactionTable(to_seeds, to_partners, [space for _, space in models])


def scores_of(models, target, others):
    return {name: row[0] for name, row in relatedness(models, [target], others, REFERENCES).items()}


def test_copies_score_high_and_unrelated_models_do_not(models):
    transferred, copied, unrelated = scores_of(models, 0, [1, 2, 3])["related"]
    assert transferred > 6
    assert copied > 6
    assert unrelated < 4


def test_representations_of_one_label_space_do_not_compare_two(models):
    scores = scores_of(models, 0, [1, 2])
    for representation in REPRESENTATIONS.values():
        assert np.isnan(scores[representation.name][0]) == representation.same_label_space
        assert np.isfinite(scores[representation.name][1])


def test_references_score_below_relatives(models):
    scores = scores_of(models, 0, np.flatnonzero(REFERENCES).tolist())["related"]
    assert np.isfinite(scores).all()
    assert scores.max() < scores_of(models, 0, [1, 2])["related"].min()


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([1.0, 2.0, 5.0, -1.0], 7), ([-3.0, -2.0, -5.0, -1.0], -3), ([np.nan, np.nan, 5.0, -1.0], 4)],
)
def test_the_fused_score_is_the_sum_of_the_two_greatest(scores, expected):
    assert fuse({name: np.array([value]) for name, value in zip(REPRESENTATIONS, scores, strict=True)}) == [expected]


def test_one_representation_alone_gives_no_fused_score():
    assert np.isnan(fuse({name: np.array([2.0 if name == "ddv" else np.nan]) for name in REPRESENTATIONS}))


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_a_representation_is_invariant_to_shift_scale_and_order(name):
    rng = np.random.default_rng(1)
    seeds, partners = rng.normal(size=(2, 12, 7))
    vector = REPRESENTATIONS[name].vector(seeds, partners)
    assert np.isfinite(vector).all()
    if name != "ddv":  # a cosine distance depends on the origin
        np.testing.assert_allclose(REPRESENTATIONS[name].vector(seeds + 3, partners + 3), vector, atol=1e-5)
    if name != "probabilities":
        np.testing.assert_allclose(REPRESENTATIONS[name].vector(5 * seeds, 5 * partners), vector, atol=1e-5)
    if not REPRESENTATIONS[name].same_label_space:
        order = rng.permutation(7)
        np.testing.assert_allclose(REPRESENTATIONS[name].vector(seeds[:, order], partners[:, order]), vector, atol=1e-5)


@pytest.mark.parametrize("references", [np.arange(30) == 9, np.arange(30) >= 0])
def test_too_few_references_and_targets_among_them_are_refused(models, references):
    with pytest.raises(InvalidInputError, match="References"):
        relatedness(models, [0], [3], references)


def test_unequal_numbers_of_seeds_and_partners_are_refused():
    with pytest.raises(InvalidInputError):
        ReactionTable([np.zeros((3, 2))], [], ["a"])


def test_a_subset_scores_as_a_separate_table(models):
    chosen = [0, 3, 1, *range(8, 30)]
    references = np.arange(len(chosen)) >= 3
    columns = (models._seeds, models._partners, models.label_spaces)
    separate = ReactionTable(*([column[i] for i in chosen] for column in columns))
    expected = relatedness(separate, [0], range(1, len(chosen)), references)
    scores = relatedness(models.subset(chosen), [0], range(1, len(chosen)), references)
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-6, atol=1e-6)
