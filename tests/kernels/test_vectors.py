"""Scaling, centring and normalising vectors."""

import jax.numpy as jnp
import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.vectors import as_matrices, centred, power_of_two, unit


def test_scaling_is_exact_and_brings_every_vector_near_1():
    x = np.float32(10.0) ** np.arange(-37, 39, dtype=np.float32)[:, None] * np.linspace(-1, 0.9, 7, dtype=np.float32)
    scale = np.asarray(power_of_two(jnp.asarray(x)))
    assert scale.shape == (76, 1)
    np.testing.assert_array_equal(np.frexp(scale)[0], 0.5)
    largest = np.abs(x / scale).max(axis=1)
    assert (largest >= 0.5).all()
    assert (largest <= 4).all()
    np.testing.assert_array_equal((x.astype(float) / scale).astype(np.float32) * scale.astype(float), x.astype(float))


@pytest.mark.parametrize("value", [0.0, 3.4e38, np.inf])
def test_a_scale_and_its_inverse_are_normal_numbers(value):
    scale = np.asarray(power_of_two(jnp.full(3, value, jnp.float32)))
    assert 2.0**-126 <= scale[0] <= 2.0**126


def test_unit_vectors_of_any_magnitude_and_of_zeros():
    x = np.random.default_rng(0).standard_normal((4, 9)).astype(np.float32)
    x[0], x[1], x[2] = x[0] * np.float32(1e-35), x[1] * np.float32(1e37), 0
    u, zero = unit(jnp.asarray(x))
    assert zero.tolist() == [False, False, True, False]
    u, wide = np.delete(u, 2, axis=0), np.delete(x, 2, axis=0).astype(np.float64)
    np.testing.assert_allclose(u, wide / np.linalg.norm(wide, axis=1, keepdims=True), atol=2e-7)


def test_centred_vectors_have_no_mean_and_constant_ones_no_entries():
    x = np.random.default_rng(0).standard_normal((3, 1000)).astype(np.float32) + np.float32(1000)
    x[1] = 0.1
    y = np.asarray(centred(jnp.asarray(x)), np.float64)
    np.testing.assert_array_equal(y[1], 0)
    assert (np.abs(y.mean(axis=1)) <= 1e-7 * np.abs(y).max()).all()
    assert np.corrcoef(y[0], x[0].astype(np.float64))[0, 1] > 1 - 1e-6


@pytest.mark.parametrize("shapes", [[(3,)], [(2, 3), (2, 4)], [(2, 3), (3,)]])
def test_two_arguments_are_matrices_of_one_width(shapes):
    a, b, *_ = [*(np.ones(shape, np.float32) for shape in shapes), None]
    with pytest.raises(InvalidInputError, match=r"`x` is \(Q, C\) and `y` is \(N, C\)") as raised:
        as_matrices(a, b, "kernel", names=("x", "y"), shapes=("(Q, C)", "(N, C)"))
    assert raised.value.where == "kernel"
