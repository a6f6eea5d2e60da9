"""scipy's distances: which arithmetic an array gets, and what differs from scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance as scipy_distance

from modeldiff_jax.compat import distance
from modeldiff_jax.errors import InvalidInputError


def rows(n=9, c=5, seed=0):
    return np.random.default_rng(seed).standard_normal((n, c))


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "bool"])
def test_numpy_is_computed_in_float64(dtype):
    a, b = (3 * rows()).astype(dtype), (3 * rows(seed=1)).astype(dtype)
    got = distance.cdist(a, b)
    assert type(got) is np.ndarray
    assert got.dtype == np.float64
    assert got.flags.writeable
    np.testing.assert_allclose(got, scipy_distance.cdist(a, b), rtol=1e-13, atol=1e-14)
    assert not jax.config.jax_enable_x64


def test_near_vectors_at_an_offset_keep_their_digits():
    a = rows() + 1e6
    b = a + 1e-7 * rows(seed=1)
    np.testing.assert_allclose(distance.cdist(a, b), scipy_distance.cdist(a, b), rtol=1e-12)
    np.testing.assert_allclose(distance.pdist(np.r_[a, b]), scipy_distance.pdist(np.r_[a, b]), rtol=1e-12)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "minkowski", "jaccard"])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_vectors(metric, n):
    assert distance.pdist(rows(n), metric).shape == (n * (n - 1) // 2,)
    assert distance.cdist(rows(n), rows(), metric).shape == (n, 9)


@pytest.mark.parametrize("options", [{"p": 3, "w": np.arange(5.0)}, {"p": np.inf}, {"p": 1}])
def test_options(options):
    got = distance.pdist(rows(), "minkowski", **options)
    np.testing.assert_allclose(got, scipy_distance.pdist(rows(), "minkowski", **options), rtol=1e-13)


@pytest.mark.parametrize("metric", ["mahalanobis", "seuclidean"])
def test_metrics_that_look_at_all_vectors(metric):
    np.testing.assert_allclose(distance.pdist(rows(), metric), scipy_distance.pdist(rows(), metric), rtol=1e-12)
    got, want = (module.cdist(rows(), rows(7, seed=1), metric) for module in (distance, scipy_distance))
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_jax_arrays_go_to_the_kernels():
    x = jnp.asarray(rows())
    got = distance.pdist(x, "cosine")
    assert isinstance(got, jax.Array)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, scipy_distance.pdist(rows(), "cosine"), rtol=1e-5)
    assert distance.cdist(x, x[:3], scipy_distance.cityblock).shape == (9, 3)
    gradient = jax.jit(jax.grad(lambda x: distance.cdist(x, x, "euclidean").sum()))(x)
    assert np.isfinite(gradient).all()
    with pytest.raises(InvalidInputError, match="without `out` and options"):
        distance.cdist(x, x, w=np.ones(5))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: distance.cdist(rows()[0], rows()), ValueError, "XA must be a 2-dimensional array"),
        (lambda: distance.cdist(rows(), rows(c=4)), ValueError, "same number of columns"),
        (lambda: distance.pdist(rows()[None]), ValueError, "2-dimensional"),
        (lambda: distance.pdist(rows(), "euclidian"), ValueError, "euclidian"),
        (lambda: distance.pdist(rows(), 3), TypeError, "string identifier or a function"),
        (lambda: distance.pdist(rows(), "cosine", p=2), TypeError, "unexpected keyword argument 'p'"),
        (lambda: distance.pdist(rows(), "minkowski", p=0), ValueError, "p must be greater than 0"),
        (lambda: distance.pdist(rows(), w=-np.ones(5)), ValueError, "none negative"),
        (lambda: distance.pdist(rows(), out=np.zeros(3)), ValueError, "`out` is a C-contiguous"),
        (lambda: distance.pdist(rows(), "seuclidean", V=np.ones(3)), ValueError, "5 variances"),
        (lambda: distance.pdist(rows(3), "mahalanobis"), ValueError, "at least 6 vectors"),
    ],
)
def test_errors_are_of_scipys_kinds(call, error, message):
    with pytest.raises(error, match=message):
        call()
