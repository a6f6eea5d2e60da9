"""Views and their fusion, on models made of random features under random heads."""

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
    """0 an owner; 1 its features under the head of another task; 2 a noisy copy; 3 a stranger; the rest references."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 8))
    partners = x + 0.3 * rng.normal(size=(N, 8))
    task = {name: rng.normal(size=(WIDTH, classes)) for name, classes in (("a", 6), ("b", 9))}
    owner = body(rng)
    made = [(owner, "a"), (owner, "b"), (owner, "a"), (body(rng), "a")]
    made += [(body(rng), "ab"[i % 2]) for i in range(26)]
    seeds = [reactions(b, task[t], x) for b, t in made]
    others = [reactions(b, task[t], partners) for b, t in made]
    for side in (seeds, others):
        side[2] = side[2] + 0.3 * rng.normal(size=side[2].shape)
    return ReactionTable(seeds, others, [t for _, t in made])


def each(models, one, others):
    return {name: row[0] for name, row in relatedness(models, [one], others, REFERENCES).items()}


def test_copies_stand_out_and_strangers_do_not(models):
    found = each(models, 0, [1, 2, 3])
    transferred, copied, stranger = found["related"]
    assert transferred > 6
    assert copied > 6
    assert stranger < 4


def test_views_of_one_label_space_say_nothing_of_another(models):
    found = each(models, 0, [1, 2])
    for view in REPRESENTATIONS.values():
        assert np.isnan(found[view.name][0]) == view.same_labels
        assert np.isfinite(found[view.name][1])


def test_references_score_as_strangers_do(models):
    found = each(models, 0, np.flatnonzero(REFERENCES).tolist())["related"]
    assert np.isfinite(found).all()
    assert found.max() < each(models, 0, [1, 2])["related"].min()


@pytest.mark.parametrize(
    ("scores", "want"),
    [([1.0, 2.0, 5.0, -1.0], 7), ([-3.0, -2.0, -5.0, -1.0], -3), ([np.nan, np.nan, 5.0, -1.0], 4)],
)
def test_the_fused_score_is_the_sum_of_the_two_strongest_views(scores, want):
    assert fuse({name: np.array([value]) for name, value in zip(REPRESENTATIONS, scores, strict=True)}) == [want]


def test_one_view_alone_is_not_enough():
    assert np.isnan(fuse({name: np.array([2.0 if name == "ddv" else np.nan]) for name in REPRESENTATIONS}))


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_a_view_is_blind_to_what_does_not_matter(name):
    rng = np.random.default_rng(1)
    seeds, partners = rng.normal(size=(2, 12, 7))
    found = REPRESENTATIONS[name].vector(seeds, partners)
    assert np.isfinite(found).all()
    if name != "ddv":  # whose cosine distance is about the origin
        np.testing.assert_allclose(REPRESENTATIONS[name].vector(seeds + 3, partners + 3), found, atol=1e-5)
    if name != "probabilities":
        np.testing.assert_allclose(REPRESENTATIONS[name].vector(5 * seeds, 5 * partners), found, atol=1e-5)
    if not REPRESENTATIONS[name].same_labels:
        order = rng.permutation(7)
        np.testing.assert_allclose(REPRESENTATIONS[name].vector(seeds[:, order], partners[:, order]), found, atol=1e-5)


@pytest.mark.parametrize("references", [np.arange(30) == 9, np.arange(30) >= 0])
def test_refuses_references_that_are_none(models, references):
    with pytest.raises(InvalidInputError, match="References"):
        relatedness(models, [0], [3], references)


def test_refuses_unequal_numbers():
    with pytest.raises(InvalidInputError):
        ReactionTable([np.zeros((3, 2))], [], ["a"])


def test_a_subset_scores_as_a_table_of_its_own(models):
    chosen = [0, 3, 1, *range(8, 30)]
    references = np.arange(len(chosen)) >= 3
    alone = ReactionTable(
        [models._seeds[i] for i in chosen], [models._partners[i] for i in chosen], [models.tasks[i] for i in chosen]
    )
    expected = relatedness(alone, [0], range(1, len(chosen)), references)
    found = relatedness(models.subset(chosen), [0], range(1, len(chosen)), references)
    for name, scores in expected.items():
        np.testing.assert_allclose(found[name], scores, rtol=1e-6, atol=1e-6)
