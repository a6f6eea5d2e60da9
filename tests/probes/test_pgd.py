"""Partners by gradients: the ball, both directions, flat models, one compilation, a plain numpy reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError, NonFiniteError
from modeldiff_jax.probes import pgd as attack
from modeldiff_jax.probes.pgd import pgd

own_error = pytest.mark.types_unchecked("the error is the product's own")

KEY = jax.random.key(3)
SHAPE = (4, 5, 1)


def linear(params, x):
    return x.reshape(x.shape[0], -1) @ params["w"]


def curved(params, x):
    return jnp.tanh(linear(params, x)) @ params["v"]


def weights(seed, shape=SHAPE, components=3, hidden=8):
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    return {
        "w": rng.normal(size=(size, hidden)).astype(np.float32),
        "v": rng.normal(size=(hidden, components)).astype(np.float32),
    }


def seeds(n=7, low=0.0, high=1.0, shape=SHAPE):
    return np.random.default_rng(0).uniform(low, high, (n, *shape)).astype(np.float32)


def modeldiff_loss(outputs, seed_reactions):
    target = 1000 * (seed_reactions.mean(0) - seed_reactions)
    squared = (np.asarray(outputs, np.float64) - target) ** 2
    return squared[:, 0] + 0.1 * squared[:, 1:].mean(1)


@pytest.mark.parametrize("direction", ["away", "toward"])
@pytest.mark.parametrize(("low", "high", "eps"), [(0.0, 1.0, 0.1), (-1.0, 1.0, 0.05), (0.0, 255.0, 1.0)])
def test_partners_stay_in_the_ball_and_in_the_range(direction, low, high, eps):
    x = seeds(low=low, high=high)
    partners = np.asarray(
        pgd(curved, weights(1), x, key=KEY, direction=direction, eps=eps, n_steps=9, low=low, high=high)
    )
    assert partners.dtype == np.float32
    assert partners.shape == x.shape
    assert np.abs(partners - x).max() <= eps * (high - low) * (1 + 1e-5)
    assert partners.min() >= low
    assert partners.max() <= high
    assert (np.abs(partners - x).max(axis=(1, 2, 3)) > 0.5 * eps * (high - low)).all()


@pytest.mark.parametrize("components", [1, 2, 5])
def test_the_loss_falls_toward_the_target_and_rises_away_from_it(components):
    params, x = weights(2, components=components), seeds(20)
    seed_reactions = np.asarray(curved(params, x), np.float64)
    loss = {}
    for direction in ("toward", "away"):
        partners = pgd(curved, params, x, key=KEY, direction=direction, loss="even", eps=0.1, n_steps=20)
        target = 1000 * (seed_reactions.mean(0) - seed_reactions)
        loss[direction] = ((np.asarray(curved(params, partners)) - target) ** 2).mean(1)
    start = ((seed_reactions - 1000 * (seed_reactions.mean(0) - seed_reactions)) ** 2).mean(1)
    assert (loss["toward"] < start).all()
    assert (loss["away"] > start).all()


def reference(x, w, noise, direction, eps, step, n_steps):
    """Attacks a linear model in float64, a pair at a time."""
    x, w = x.reshape(len(x), -1).astype(np.float64), w.astype(np.float64)
    seed_reactions = x @ w
    partners = []
    for i in range(len(x)):
        target = 1000 * (seed_reactions.mean(0) - seed_reactions[i])
        point = np.clip(x[i] + eps * noise[i].reshape(-1), 0, 1)
        for _ in range(n_steps):
            off = point @ w - target
            gradient = 2 * off[0] * w[:, 0] + 0.1 * 2 * (w[:, 1:] @ off[1:]) / (w.shape[1] - 1)
            point = point + (step if direction == "away" else -step) * np.sign(gradient)
            point = np.clip(np.clip(point, x[i] - eps, x[i] + eps), 0, 1)
        partners.append(point)
    return np.array(partners)


@pytest.mark.parametrize("direction", ["away", "toward"])
def test_a_linear_model_is_attacked_as_by_plain_numpy(direction):
    params, x = weights(4), seeds(11)
    noise = np.asarray(jax.random.uniform(KEY, x.shape, jnp.float32, -1.0, 1.0), np.float64)
    expected = reference(x, params["w"], noise, direction, 0.06, 0.01, 5)
    got = np.asarray(pgd(linear, params, x, key=KEY, direction=direction, eps=0.06, step=0.01, n_steps=5))
    np.testing.assert_allclose(got.reshape(len(x), -1), expected, atol=1e-6)


def test_the_key_decides_the_partners():
    x, params = seeds(), weights(1)
    first, again = (pgd(curved, params, x, key=KEY, n_steps=2) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, pgd(curved, params, x, key=jax.random.key(4), n_steps=2))


def test_models_of_one_function_compile_once():
    traces = []

    def counted(params, x):
        traces.append(x.shape)
        return curved(params, x)

    pgd(counted, weights(1), seeds(), key=KEY, n_steps=3)
    once = len(traces)
    assert once > 0
    for seed, direction, eps, n_steps in ((2, "away", 0.1, 3), (3, "toward", 0.2, 5)):
        pgd(counted, weights(seed), seeds(), key=KEY, direction=direction, eps=eps, n_steps=n_steps)
    assert len(traces) == once


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_the_size_of_a_chunk_changes_nothing(chunk):
    x, params = seeds(7), weights(5)
    whole = pgd(curved, params, x, key=KEY, n_steps=4)
    np.testing.assert_allclose(pgd(curved, params, x, key=KEY, n_steps=4, chunk=chunk), whole, atol=1e-6)


@pytest.mark.parametrize("direction", ["away", "toward"])
def test_one_compiled_loop_and_a_driven_step_agree(monkeypatch, direction):
    x, params = seeds(7), weights(5)
    driven = pgd(curved, params, x, key=KEY, n_steps=4, chunk=3, direction=direction)
    monkeypatch.setattr(attack, "_on_host", attack._on_device)
    looped = pgd(curved, params, x, key=KEY, n_steps=4, chunk=3, direction=direction)
    np.testing.assert_allclose(driven, looped, atol=1e-6)


def test_known_reactions_to_the_seeds_change_nothing():
    x, params = seeds(7), weights(5)
    seed_reactions = np.asarray(curved(params, x))
    got = pgd(curved, params, x, key=KEY, n_steps=4, seed_reactions=seed_reactions)
    np.testing.assert_allclose(got, pgd(curved, params, x, key=KEY, n_steps=4), atol=1e-6)


def test_a_flat_model_sends_partners_to_a_corner_of_the_ball():
    x = seeds(low=0.3, high=0.7)
    partners = pgd(lambda params, x: jnp.ones((x.shape[0], 2)), {}, x, key=KEY, eps=0.1, n_steps=20)
    np.testing.assert_allclose(np.abs(partners - x), 0.1, atol=1e-6)


def test_an_undefined_slope_is_no_direction():
    def rooted(params, x):
        return jnp.sqrt(jnp.maximum(linear(params, x), 0.0))

    x = seeds(9)
    partners = np.asarray(pgd(rooted, weights(0), x, key=KEY, n_steps=5))
    assert np.isfinite(partners).all()


def test_the_released_loss_weighs_component_zero_as_all_others_by_ten():
    outputs, targets = jnp.array([[1.0, 2.0, 4.0]]), jnp.zeros((1, 3))
    assert float(attack._modeldiff(outputs, targets)[0]) == pytest.approx(1 + 0.1 * (4 + 16) / 2)
    assert float(attack._modeldiff(outputs[:, :1], targets[:, :1])[0]) == pytest.approx(1)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param({"direction": "up"}, marks=own_error),
        pytest.param({"loss": "none"}, marks=own_error),
        {"eps": 0.0},
        {"eps": 1.5},
        {"step": -0.1},
        {"n_steps": 0},
        {"low": 1.0, "high": 1.0},
    ],
)
def test_bad_arguments_are_refused(bad):
    with pytest.raises(InvalidInputError):
        pgd(curved, weights(0), seeds(), key=KEY, **bad)


def test_reactions_that_are_not_finite_are_refused():
    with pytest.raises(NonFiniteError):
        pgd(lambda params, x: linear(params, x) / 0.0, weights(0), seeds(), key=KEY)
