"""Resampling against numpy's interpolation, and the laws of its weights."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from modeldiff_jax.kernels.resize import interpolation_weights, resample

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 5, 6)).astype(np.float32)
PLACES = np.float32([-0.7, 0, 0.25, 1.5, 3.9, 4, 4.6])


def test_linear_interpolation_is_numpys():
    weights = interpolation_weights(PLACES, 5, method="linear")
    want = np.stack([[np.interp(PLACES, np.arange(5), X[i, :, j]) for j in range(6)] for i in range(2)])
    np.testing.assert_allclose(resample(jnp.asarray(X), {1: weights}), np.moveaxis(want, 1, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize("widening", [1.0, 1.7])
@pytest.mark.parametrize("exclude_outside", [False, True])
def test_weights_add_up_to_one(method, widening, exclude_outside):
    options = {"widening": widening, "exclude_outside": exclude_outside}
    weights = interpolation_weights(PLACES, 5, method=method, **options)
    assert weights.shape == (len(PLACES), 5)
    np.testing.assert_allclose(weights.sum(1), 1)
    constant = jnp.full((1, 5), 3.7)
    np.testing.assert_allclose(resample(constant, {1: weights}), np.full((1, len(PLACES)), 3.7), rtol=1e-6)


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_whole_places_give_the_entries_themselves(method):
    weights = interpolation_weights(np.float32([3, 0, 4]), 5, method=method)
    np.testing.assert_array_equal(resample(jnp.asarray(X), {1: weights}), X[:, [3, 0, 4]])


def test_cubic_interpolation_is_exact_for_parabolas():
    """With a of -1/2 the cubic convolution reproduces polynomials of degree 2 (Keys 1981)."""
    x, places = np.arange(9, dtype=np.float32), np.float32([1.25, 3.5, 6.9])
    weights = interpolation_weights(places, 9, method="cubic", cubic_coefficient=-0.5)
    np.testing.assert_allclose(weights @ x**2, places.astype(np.float64) ** 2, rtol=1e-6)


@pytest.mark.parametrize("entries", [[0, 0, 1, 1, 2, 2], [2, 0, 1, 1], [1], []])
def test_nearest_sampling_picks_entries(entries):
    x, entries = X[:, :3], np.asarray(entries, np.int64)
    np.testing.assert_array_equal(resample(jnp.asarray(x), {1: entries}), x[:, entries])


def test_several_axes_are_resampled_one_by_one():
    rows, columns = interpolation_weights(PLACES, 5, method="cubic"), np.asarray([0, 3, 5])
    both = resample(jnp.asarray(X), {1: rows, 2: columns})
    np.testing.assert_allclose(both, np.einsum("ri,bij->brj", rows, X)[..., columns], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_floats_keep_their_type(dtype):
    weights = interpolation_weights(PLACES, 5, method="linear")
    x = jnp.asarray(X, dtype)
    got = resample(x, {1: weights, 2: interpolation_weights(PLACES[1:4], 6, method="linear")})
    exact = np.einsum(
        "ri,cj,bij->brc", weights, interpolation_weights(PLACES[1:4], 6, method="linear"), x.astype(float)
    )
    assert got.dtype == dtype
    np.testing.assert_allclose(got.astype(np.float32), exact, atol=3 * float(ml_dtypes.finfo(dtype).eps))


def test_interpolated_integers_are_float32_and_picked_ones_stay():
    x = jnp.asarray(RNG.integers(0, 9, (1, 5)), np.uint8)
    assert resample(x, {1: interpolation_weights(PLACES, 5, method="linear")}).dtype == np.float32
    assert resample(x, {1: np.asarray([0, 2])}).dtype == np.uint8


def test_nothing_is_resampled_to_nothing():
    empty = jnp.zeros((2, 0))
    assert resample(empty, {1: interpolation_weights(PLACES, 0, method="linear")}).shape == (2, len(PLACES))
    assert resample(empty, {1: np.zeros(4, np.int64)}).shape == (2, 4)


def test_the_derivative_is_the_transposed_map():
    weights = interpolation_weights(PLACES, 5, method="cubic")
    (back,) = jax.vjp(lambda x: resample(x, {0: weights}), jnp.zeros(5))[1](jnp.ones(len(PLACES)))
    np.testing.assert_allclose(back, weights.sum(0), rtol=1e-5, atol=1e-6)
