"""Partners by queries: the budget, the score, vocabularies, and a plain one-pair-at-a-time reference."""

import math

import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.probes.hill_climbing import _FIRST_SHARE, propose, search

W = np.random.default_rng(1).normal(size=(36, 4))


def react(x):
    return np.tanh(x.reshape(len(x), -1)[:, :36].astype(np.float64) @ W / 3)


def seeds(n=6, shape=(6, 6, 1)):
    return np.random.default_rng(0).uniform(0, 1, (n, *shape)).astype(np.float32)


def tokens(n=6, length=36, vocabulary=9):
    return np.random.default_rng(0).integers(0, vocabulary, (n, length), np.int32)


def run(x, budget=200, key=0, low=0.0, high=1.0, **options):
    return search(options.pop("react", react), x, rng=np.random.default_rng(key), budget=budget, low=low, high=high)


def score(i, reaction, x, outputs):
    """Returns divergence times diversity of pair i, if its partner's reaction were `reaction`."""
    others = [math.dist(reaction, outputs[j]) for j in range(len(x)) if j != i]
    return math.dist(reaction, react(x[i : i + 1])[0]) * sum(others) / len(others)


def reference(x, rounds, key, low, high):
    """Climbs in plain Python, one pair and one query at a time."""
    rng = np.random.default_rng(key)
    partners = x.copy()
    for turn in range(rounds):
        share = _FIRST_SHARE * (1 - turn / rounds)
        moves = propose(rng, x, partners, share=share, low=low, high=high, eps=0.2)
        outputs = [react(p[None])[0] for p in partners]
        after = partners.copy()
        for i in range(len(x)):
            best = score(i, outputs[i], x, outputs)
            for move in moves[:, i]:
                new = score(i, react(move[None])[0], x, outputs)
                if new > best:
                    best, after[i] = new, move
        partners = after
    return partners


@pytest.mark.parametrize(("x", "high"), [(seeds(), 1.0), (seeds(5, (40,)), 1.0), (tokens(), 8.0)])
def test_all_pairs_at_once_climb_as_one_pair_at_a_time(x, high):
    partners, _ = run(x, budget=len(x) * 25, high=high)
    np.testing.assert_array_equal(partners, reference(x, 12, 0, 0.0, high))


@pytest.mark.parametrize("budget", [18, 29, 30, 100, 1001])
def test_the_budget_is_never_exceeded_and_queries_are_counted(budget):
    counts = []

    def counting(x):
        counts.append(len(x))
        return react(x)

    _, queries = run(seeds(), budget=budget, react=counting)
    assert queries == sum(counts) <= budget
    assert budget - queries < 2 * len(seeds())


@pytest.mark.parametrize("budget", [1, 17])
def test_a_budget_below_one_round_is_refused(budget):
    with pytest.raises(InvalidInputError, match="18 queries"):
        run(seeds(), budget=budget)


def total(x, partners):
    outputs = react(partners)
    return sum(score(i, outputs[i], x, outputs) for i in range(len(x)))


@pytest.mark.parametrize(("x", "high"), [(seeds(12), 1.0), (tokens(12), 8.0)])
def test_climbing_beats_moving_at_random(x, high):
    climbed, _ = run(x, budget=12 * 41, high=high)
    rng = np.random.default_rng(7)
    walks = []
    for _ in range(5):
        walk = x.copy()
        for turn in range(20):
            moves = propose(rng, x, walk, share=_FIRST_SHARE * (1 - turn / 20), low=0.0, high=high, eps=0.2)
            walk = moves[rng.integers(0, 2, len(x)), np.arange(len(x))]
        walks.append(total(x, walk))
    assert total(x, climbed) > 1.5 * max(walks)


def test_the_generator_decides_the_partners():
    first, again, other = (run(seeds(), key=key)[0] for key in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_known_reactions_to_the_seeds_save_their_queries():
    x = seeds()
    options = {"rng": np.random.default_rng(0), "low": 0.0, "high": 1.0}
    partners, queries = search(react, x, budget=120, seed_reactions=react(x), **options)
    assert queries == 120
    np.testing.assert_array_equal(partners, run(x, budget=126)[0])


def test_seeds_are_left_as_they_are():
    x = seeds()
    kept = x.copy()
    run(x)
    np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize("shape", [(9, 7, 3), (30,), (5, 6, 7), (12, 2)])
@pytest.mark.parametrize("share", [0.3, 0.0])
def test_a_move_is_a_step_within_one_box_and_its_opposite(shape, share):
    x = seeds(20, shape)
    up, down = propose(np.random.default_rng(2), x, x, share=share, low=0.0, high=1.0, eps=0.2)
    for moved in (up, down):
        assert moved.dtype == np.float32
        assert moved.min() >= 0
        assert moved.max() <= 1
        assert np.abs(moved - x).max() <= 0.2 + 1e-6
    steps = np.stack([up, down]).astype(np.float64) - x
    free = (x > 0.2) & (x < 0.8)  # clipping makes steps shorter elsewhere
    np.testing.assert_allclose(steps[0][free], -steps[1][free], atol=1e-6)
    channels = shape[-1] if len(shape) > 1 and shape[-1] <= 4 else 1
    for one in np.any(steps != 0, axis=0):
        where = np.argwhere(one)
        sides = where.max(0) - where.min(0) + 1
        assert one.sum() == math.prod(sides)  # the box is filled
        if share == 0:
            assert one.sum() == channels


def test_tokens_stay_in_the_vocabulary():
    x = tokens(vocabulary=9)
    partners, _ = run(x, high=8.0)
    assert partners.dtype == x.dtype
    assert partners.min() >= 0
    assert partners.max() <= 8
    assert (partners != x).any(axis=1).all()


def test_moves_reach_both_ends_of_the_vocabulary():
    x = tokens(50, vocabulary=3)
    drawn = propose(np.random.default_rng(0), x, x, share=1.0, low=0.0, high=2.0, eps=0.2)
    assert set(np.unique(drawn)) == {0, 1, 2}


@pytest.mark.parametrize("eps", [0.0, 1.1])
def test_a_move_beyond_the_range_is_refused(eps):
    with pytest.raises(InvalidInputError, match="eps"):
        search(react, seeds(), rng=np.random.default_rng(0), budget=99, low=0.0, high=1.0, eps=eps)
