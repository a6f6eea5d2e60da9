"""Pooling against its definition, window by window in float64."""

import itertools
import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import pooling
from modeldiff_jax.kernels.pooling import pooling_window

X = np.random.default_rng(0).standard_normal((2, 3, 9, 7)).astype(np.float32)
CASES = {  # options of the windows of each axis
    "plain": ({"taps": 3}, {"taps": 2}),
    "strided, padded": ({"taps": 3, "stride": 2, "before": 1, "after": 1}, {"taps": 2, "stride": 3, "after": 1}),
    "dilated": ({"taps": 2, "dilation": 3, "before": 2}, {"taps": 3, "dilation": 2, "stride": 2, "after": 1}),
    "beyond": ({"taps": 3, "stride": 3, "before": 1, "after": 1, "ceil": True}, {"taps": 2, "stride": 4, "ceil": True}),
}
every_case = pytest.mark.parametrize("options", CASES.values(), ids=CASES)


@pytest.fixture(params=[pooling._MOST_SLICES, 0], ids=["slices", "long windows"])
def form(request, monkeypatch):
    """Windows of few taps are slices of the array; long ones one operation."""
    monkeypatch.setattr(pooling, "_MOST_SLICES", request.param)


in_both_forms = pytest.mark.usefixtures("form")


def windows_of(options):
    return tuple(pooling_window(size, **each) for size, each in zip(X.shape[2:], options, strict=True))


def stored(windows, place):
    """For one window: the indices of its taps that lie in the input, and how many lie in the input or its padding."""
    axes = [window.positions()[i] for window, i in zip(windows, place, strict=True)]
    inside = [[int(p) for p in places if 0 <= p < w.size] for places, w in zip(axes, windows, strict=True)]
    counted = [sum(-w.before <= p < w.size + w.after for p in places) for places, w in zip(axes, windows, strict=True)]
    return list(itertools.product(*inside)), math.prod(counted)


def by_definition(windows, reduce):
    y = np.zeros((*X.shape[:2], *(window.outputs for window in windows)))
    for place in np.ndindex(*y.shape[2:]):
        taps, counted = stored(windows, place)
        values = np.stack([X[(..., *tap)].astype(np.float64) for tap in taps])
        y[(..., *place)] = reduce(values, counted)
    return y


@in_both_forms
@every_case
def test_maxima(options):
    windows = windows_of(options)
    largest = jax.jit(lambda x: pooling.max_pool(x, windows))(X)
    np.testing.assert_array_equal(largest, by_definition(windows, lambda v, _: v.max(0)))


@in_both_forms
@every_case
@pytest.mark.parametrize("count_padding", [False, True])
def test_means(options, count_padding):
    windows = windows_of(options)
    want = by_definition(windows, lambda v, counted: v.sum(0) / (counted if count_padding else len(v)))
    pools = (pooling.average_pool, pooling.average_pool_in_row_order)
    for means in jax.jit(lambda x: [pool(x, windows, count_padding=count_padding) for pool in pools])(X):
        np.testing.assert_allclose(means, want, rtol=1e-5, atol=1e-6)


@in_both_forms
@every_case
@pytest.mark.parametrize("p", [1, 2, 3.5])
def test_norms(options, p):
    windows = windows_of(options)
    want = by_definition(windows, lambda v, _: (np.abs(v) ** p).sum(0) ** (1 / p))
    np.testing.assert_allclose(jax.jit(lambda x: pooling.lp_pool(x, windows, p))(X), want, rtol=1e-5)


@in_both_forms
@every_case
@pytest.mark.parametrize("column_major", [False, True])
def test_places(options, column_major):
    windows = windows_of(options)

    @jax.jit
    def both(x):
        largest = pooling.max_pool(x, windows)
        return largest, pooling.max_pool_indices(x, largest, windows, column_major=column_major)

    largest, places = map(np.asarray, both(X))
    flat = (np.moveaxis(X, 2, 3) if column_major else X).reshape(-1)
    np.testing.assert_array_equal(flat[places], largest)


def test_global_pools():
    x = jnp.asarray(X)
    np.testing.assert_allclose(pooling.global_average_pool(x), X.mean((2, 3), keepdims=True), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(pooling.global_max_pool(x), X.max((2, 3), keepdims=True))
    norms = np.linalg.norm(X.reshape(2, 3, -1).astype(np.float64), axis=-1)
    np.testing.assert_allclose(pooling.global_lp_pool(x, 2)[..., 0, 0], norms, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_floats_are_added_up_in_float32(dtype):
    x = jnp.full((1, 1, 20), 5120, dtype)
    windows = (pooling_window(20, 20),)
    means = jax.jit(lambda x: (pooling.average_pool(x, windows), pooling.global_average_pool(x)))(x)
    np.testing.assert_array_equal(jnp.stack(means), jnp.full((2, 1, 1, 1), 5120, dtype))
    norm = jax.jit(lambda x: pooling.lp_pool(x, windows, 2))(x)
    assert norm.dtype == dtype
    np.testing.assert_allclose(norm.astype(np.float32), 5120 * 20**0.5, rtol=1e-2)


@in_both_forms
def test_channels_last():
    windows = windows_of(CASES["strided, padded"])
    for pool in (pooling.max_pool, pooling.average_pool):
        last = pool(jnp.moveaxis(X, 1, -1), windows, layout="channels_last")
        np.testing.assert_array_equal(jnp.moveaxis(last, -1, 1), pool(jnp.asarray(X), windows))


def test_programs_do_not_grow_with_the_window():
    x, window = jnp.zeros((1, 1, 2**14)), (pooling_window(2**14, 2**14),)
    for pool in (pooling.average_pool, pooling.average_pool_in_row_order, pooling.max_pool):
        assert len(str(jax.make_jaxpr(lambda x, pool=pool: pool(x, window))(x))) < 5000


@in_both_forms
def test_gradients_at_ties_and_at_zero():
    windows = (pooling_window(4, 2, stride=2),)
    zeros = jnp.zeros((1, 1, 4))
    slope = jax.grad(lambda x: pooling.max_pool(x, windows).sum())(zeros)
    np.testing.assert_array_equal(slope[0, 0], [1, 0, 1, 0])
    assert not jax.grad(lambda x: pooling.lp_pool(x, windows, 2).sum())(zeros).any()


@pytest.mark.parametrize(
    ("options", "outputs", "beyond"),
    [
        ({"taps": 2, "stride": 2}, 2, 0),
        ({"taps": 2, "stride": 2, "ceil": True}, 3, 1),
        ({"taps": 3, "stride": 3, "before": 1, "ceil": True}, 2, 0),
        ({"taps": 2, "stride": 3, "before": 1, "ceil": True}, 2, 0),
        ({"taps": 6, "ceil": True, "stride": 2}, 1, 1),
    ],
)
def test_numbers_of_windows(options, outputs, beyond):
    window = pooling_window(5, **options)
    assert (window.outputs, window.beyond) == (outputs, beyond)


@pytest.mark.parametrize(
    "options",
    [{"taps": 0}, {"taps": 2, "stride": 0}, {"taps": 2, "dilation": 0}, {"taps": 2, "before": -1}, {"taps": 6}],
)
def test_windows_that_are_none_are_refused(options):
    with pytest.raises(InvalidInputError):
        pooling_window(5, **options)
