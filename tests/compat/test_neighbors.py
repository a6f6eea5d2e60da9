"""scikit-learn's neighbours: its results, its conventions, its errors."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import neighbors as sklearn_neighbors
from sklearn.base import clone
from sklearn.metrics import pairwise_distances as sklearn_distances

from modeldiff_jax.compat.neighbors import NearestNeighbors, pairwise_distances
from modeldiff_jax.errors import InvalidInputError


def rows(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 6)).astype(np.float32)


@pytest.mark.parametrize("metric", ["euclidean", "l1", "manhattan", "cosine", "chebyshev"])
def test_distances_are_scikit_learns(metric):
    x, y = rows(9), rows(4, 1)
    np.testing.assert_allclose(pairwise_distances(x, y, metric), sklearn_distances(x, y, metric), rtol=1e-5)
    np.testing.assert_allclose(pairwise_distances(x, metric=metric), sklearn_distances(x, metric=metric), atol=1e-6)
    assert pairwise_distances(x, metric=metric).dtype == np.float32


def test_precomputed_distances_are_passed_on():
    d = rows(6)
    np.testing.assert_array_equal(pairwise_distances(d, metric="precomputed"), d)
    with pytest.raises(InvalidInputError, match="precomputed"):
        pairwise_distances(rows(5), metric="precomputed")


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "cityblock"])
def test_neighbours_are_scikit_learns(metric):
    x, queries = rows(30), rows(7, 1)
    ours = NearestNeighbors(n_neighbors=4, radius=2.0, metric=metric).fit(x)
    theirs = sklearn_neighbors.NearestNeighbors(n_neighbors=4, radius=2.0, metric=metric, algorithm="brute").fit(x)
    for given in (queries, None):
        got, want = ours.kneighbors(given), theirs.kneighbors(given)
        np.testing.assert_array_equal(got[1], want[1])
        np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(ours.kneighbors(given, 2, return_distance=False), want[1][:, :2])
        near, far = ours.radius_neighbors(given, sort_results=True), theirs.radius_neighbors(given, sort_results=True)
        for i in range(len(near[0])):
            np.testing.assert_array_equal(near[1][i], far[1][i])
            np.testing.assert_allclose(near[0][i], far[0][i], rtol=1e-5, atol=1e-6)


def test_ties_come_by_index_and_none_is_its_own_neighbour():
    x = np.repeat(rows(2), 4, axis=0)
    indices = NearestNeighbors(n_neighbors=3).fit(x).kneighbors(return_distance=False)
    np.testing.assert_array_equal(indices[:4], [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
    np.testing.assert_array_equal(NearestNeighbors(n_neighbors=2).fit(x).kneighbors(x[5:6])[1], [[4, 5]])


def test_conventions_of_estimators():
    estimator = NearestNeighbors(n_neighbors=3, metric="cosine")
    copy = clone(estimator)
    assert copy is not estimator
    theirs = sklearn_neighbors.NearestNeighbors(n_neighbors=3, metric="cosine").get_params()
    assert copy.get_params() == {name: value for name, value in theirs.items() if name != "leaf_size"}
    assert copy.set_params(metric="l1").fit(rows(5)).effective_metric_ == "cityblock"
    assert (copy.n_samples_fit_, copy.n_features_in_) == (5, 6)
    assert repr(estimator) == "NearestNeighbors(metric='cosine', n_neighbors=3)"
    with pytest.raises(ValueError, match="Invalid parameter 'leaf_size'"):
        copy.set_params(leaf_size=3)


@pytest.mark.parametrize(("p", "metric"), [(1, "cityblock"), (2, "euclidean"), (np.inf, "chebyshev")])
def test_minkowski_is_the_metric_of_its_exponent(p, metric):
    assert NearestNeighbors(algorithm="brute", p=p).fit(rows(5)).effective_metric_ == metric


def test_graphs_are_scikit_learns():
    x, queries = rows(30), rows(7, 1)
    ours = NearestNeighbors(n_neighbors=4, radius=2.0).fit(x)
    theirs = sklearn_neighbors.NearestNeighbors(n_neighbors=4, radius=2.0, algorithm="brute").fit(x)
    for mode in ("connectivity", "distance"):
        for given in (queries, None):
            for method in ("kneighbors_graph", "radius_neighbors_graph"):
                got, want = (getattr(one, method)(given, mode=mode) for one in (ours, theirs))
                assert got.shape == want.shape
                np.testing.assert_allclose(got.toarray(), want.toarray(), rtol=1e-5, atol=1e-6)


def test_anything_array_like_is_taken():
    x = rows(9)
    want = NearestNeighbors(n_neighbors=2).fit(x).kneighbors(x[:3])
    for given in (x.tolist(), x.astype(object), x.astype(np.float64), jnp.asarray(x)):
        got = NearestNeighbors(n_neighbors=2).fit(given).kneighbors(x[:3].tolist())
        np.testing.assert_array_equal(got[1], want[1])


def test_a_fitted_estimator_can_be_pickled():
    estimator = NearestNeighbors(n_neighbors=2).fit(rows(9))
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(again.kneighbors()[1], estimator.kneighbors()[1])


def test_jax_queries_have_jax_answers():
    estimator = NearestNeighbors(n_neighbors=2).fit(rows(9))
    assert all(isinstance(found, jax.Array) for found in estimator.kneighbors(jnp.asarray(rows(3))))
    assert all(isinstance(found, np.ndarray) for found in estimator.kneighbors(rows(3)))
    assert isinstance(pairwise_distances(jnp.asarray(rows(3))), jax.Array)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NearestNeighbors().kneighbors(rows(2)), "fitted"),
        (lambda: NearestNeighbors().fit(rows(4)).kneighbors(rows(2)), "n_neighbors <= 4"),
        (lambda: NearestNeighbors(n_neighbors=4).fit(rows(4)).kneighbors(), "n_neighbors <= 3"),
        (lambda: NearestNeighbors().fit(rows(9)).kneighbors(rows(2)[:, :4]), "6 features"),
        (lambda: NearestNeighbors().fit(rows(9)[0]), "2D"),
        (lambda: NearestNeighbors().fit(np.full((3, 2), np.nan)), "NaN"),
        (lambda: NearestNeighbors().fit(np.full((3, 2), 1e300)), "NaN or infinity, also as float32"),
        (lambda: NearestNeighbors().fit(rows(4) + 1j), "Complex data not supported"),
        (lambda: NearestNeighbors(algorithm="kd_tree").fit(rows(4)), "'auto' or 'brute'"),
        (lambda: NearestNeighbors(p=3).fit(rows(4)), "1, 2 or infinity"),
        (lambda: NearestNeighbors(metric="dot").fit(rows(4)), "`metric` is one of"),
        (lambda: NearestNeighbors(metric_params={"w": 1}).fit(rows(4)), "None or empty"),
        pytest.param(
            lambda: NearestNeighbors(n_neighbors=1.5).fit(rows(4)).kneighbors(),
            "n_neighbors <= 3",
            marks=pytest.mark.types_unchecked("the error is the product's own"),
        ),
        (lambda: NearestNeighbors().fit(rows(9)).kneighbors_graph(mode="graph"), "'connectivity' or 'distance'"),
        (
            lambda: NearestNeighbors().fit(rows(9)).radius_neighbors(return_distance=False, sort_results=True),
            "sort_results",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()
