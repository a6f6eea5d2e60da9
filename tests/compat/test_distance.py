"""scipy's distances: the arithmetic for each type of array, and differences from scipy."""

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


# Every metric and type, against scipy

METRICS = sorted(name for name in distance._PAIR_FUNCTIONS)
WITHOUT_WEIGHTS = ("jensenshannon", "mahalanobis", "seuclidean")
REAL = ["bool", "int8", "uint8", "int16", "uint32", "int64", "uint64", "float16", "float32", "float64", "longdouble"]
OTHER = ["object", "str", "bytes", "datetime64[s]", "timedelta64[s]", "complex64", "complex128"]


def counts(n=13, c=6, seed=1):
    """Returns counts, among them 0, 1 and more, as of words in texts."""
    return np.random.default_rng(seed).poisson(1.0, (n, c))


def weights(metric):
    return [{}] if metric in WITHOUT_WEIGHTS else [{}, {"w": np.array([1, 2, 0, 0.5, 1, 1])}]


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_of_every_real_type_is_scipys(metric):
    for dtype in REAL:
        for values in (counts(), counts() + 0.25) if dtype != "bool" else (counts(),):
            x, y = values.astype(dtype), values[:4].astype(dtype)
            for options in weights(metric):
                with np.errstate(all="ignore"):
                    want = scipy_distance.cdist(x, y, metric, **options)
                got = distance.cdist(x, y, metric, **options)
                np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12, err_msg=f"{dtype} {options}")
                assert got.dtype == np.float64


@pytest.mark.parametrize("metric", METRICS)
def test_condensed_distances_of_counts_are_scipys(metric):
    for options in weights(metric):
        with np.errstate(all="ignore"):
            want = scipy_distance.pdist(counts(), metric, **options)
        np.testing.assert_allclose(distance.pdist(counts(), metric, **options), want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")  # scipy's, of the parts that it drops
def test_other_types_are_refused_where_scipy_refuses_them_and_complex_ones_always(metric):
    for dtype in OTHER:
        x = counts().astype(dtype)
        try:
            want = None if "complex" in dtype else scipy_distance.cdist(x, x[:4], metric)
        except (TypeError, ValueError):
            want = None
        if want is None:
            with pytest.raises((TypeError, ValueError)):
                distance.cdist(x, x[:4], metric)
            with pytest.raises((TypeError, ValueError)):
                distance.pdist(x, metric)
        else:
            np.testing.assert_allclose(distance.cdist(x, x[:4], metric), want, rtol=1e-9, atol=1e-12)


def test_complex_vectors_are_refused_by_the_functions_of_one_pair_too():
    z = np.array([[1 + 5j, 2], [1 - 5j, 2]])
    for metric in ("euclidean", "test_cosine", scipy_distance.cityblock, lambda u, v: abs(u - v).sum()):
        if callable(metric) and metric.__name__ == "<lambda>":  # a user's function gets the vectors as they are
            assert distance.pdist(z, metric) == pytest.approx([10])
        else:
            with pytest.raises(ValueError, match="hold real numbers"):
                distance.pdist(z, metric)
    with pytest.raises(ValueError, match="real numbers"):
        distance.pdist(jnp.asarray(z))


@pytest.mark.parametrize("metric", METRICS)
def test_special_vectors_have_scipys_distances(metric):
    x = np.array([[1, 2, 3], [0, 0, 0], [1, -1, 0], [-1, 2, 3], [2, 4, 6], [0, 1, 0], [5, 5, 5]], float)
    with np.errstate(all="ignore"):
        want = scipy_distance.cdist(x, x[1:], metric)
    np.testing.assert_allclose(distance.cdist(x, x[1:], metric), want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("metric", [m for m in METRICS if m not in (*distance._BOOLEAN, *distance._BOOLEAN_OR_REAL)])
def test_distances_of_nan_are_nan(metric):
    x = np.abs(rows(13)) + 1
    options = {"seuclidean": {"V": np.ones(5)}, "mahalanobis": {"VI": np.eye(5)}}.get(metric, {})
    want = distance.cdist(x, x[:4], metric, **options)
    x[2, 1] = np.nan
    got = distance.cdist(x, x[:4], metric, **options)
    assert np.isnan(got[2]).all()
    assert np.isnan(got[:, 2]).all()
    kept = np.delete(np.arange(13), 2)
    np.testing.assert_allclose(got[np.ix_(kept, [0, 1, 3])], want[np.ix_(kept, [0, 1, 3])], rtol=1e-12)


@pytest.mark.parametrize("setting", ["x64", "strict"])
def test_programs_settings_change_nothing(setting):
    x, want = jnp.asarray(rows()), distance.pdist(rows(), "cosine")
    of_jax = distance.pdist(x, "cosine")
    if setting == "x64":
        with jax.enable_x64(True):
            np.testing.assert_array_equal(distance.pdist(rows(), "cosine"), want)
            np.testing.assert_allclose(distance.pdist(x, "cosine"), of_jax, rtol=1e-6)
            assert distance.pdist(x, "cosine").dtype == jnp.float32
    else:
        with (
            jax.transfer_guard("disallow"),
            jax.debug_nans(True),
            jax.numpy_rank_promotion("raise"),
            jax.numpy_dtype_promotion("strict"),
        ):
            np.testing.assert_array_equal(distance.pdist(rows(), "cosine"), want)
            assert np.isnan(distance.pdist(np.zeros((9, 5)), "cosine")).all()
            np.testing.assert_allclose(distance.pdist(x, "cosine"), of_jax, rtol=1e-6)


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
def test_metrics_that_depend_on_all_vectors(metric):
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
