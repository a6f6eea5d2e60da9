"""Near pairs within one set, against float64."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import paired_distances, pairwise_distances, prepare, self_join
from modeldiff_jax.kernels.self_join import pairs_within

from . import neighbours

_self_join = importlib.import_module("modeldiff_jax.kernels.self_join")  # the package's name is the function's


def others(rows, metric):
    cost = neighbours.costs(rows, rows, metric)
    np.fill_diagonal(cost, np.inf)
    return cost


long = pytest.mark.long


@pytest.mark.parametrize("metric", ["cosine", *(pytest.param(m, marks=long) for m in neighbours.METRICS[1:])])
@pytest.mark.parametrize("variant", ["xla", pytest.param("reference", marks=long)])
def test_nearest_others_agree_with_float64(metric, variant):
    rows = neighbours.clustered(703, 12, spread=0.5)
    values, index = self_join(rows, 3, metric=metric, implementation=variant)
    want, order = neighbours.expected(others(rows, metric), 3)
    np.testing.assert_array_equal(index, order)
    np.testing.assert_allclose(values, neighbours.value(want, metric), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize(("k", "room"), [(3, 2**17), *(pytest.param(*x, marks=long) for x in [(3, 0), (60, 0)])])
def test_with_room_for_tables_of_all_rows_or_without(k, room, monkeypatch):
    rows = neighbours.clustered(703, 7, spread=0.5)
    monkeypatch.setattr(_self_join, "_MOST_STORED", room)
    jax.clear_caches()
    index = self_join(rows, k)[1]
    jax.clear_caches()
    np.testing.assert_array_equal(index, neighbours.expected(others(rows, "cosine"), k)[1])


@long
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_several_tiles_equal_rows_and_not_a_number(precision):
    rows = neighbours.iid(4999, 8)
    rows[4000], rows[77], rows[9] = rows[8], rows[8], np.nan
    values, index = map(np.asarray, self_join(prepare(rows, "euclidean", precision), 3))
    assert index[8, :2].tolist() == [77, 4000]
    assert index[77, :2].tolist() == [8, 4000]
    assert np.isnan(values[9]).all()
    assert index[9].tolist() == [0, 1, 2]
    assert not (index == np.arange(4999)[:, None]).any()
    some = np.delete(np.arange(0, 4999, 331), 0)
    cost = np.linalg.norm(rows[some, None].astype(float) - rows[None], axis=2)
    cost[np.arange(len(some)), some] = np.inf
    np.testing.assert_array_equal(index[some], neighbours.expected(np.nan_to_num(cost, nan=np.inf), 3)[1])


@long
@pytest.mark.parametrize("n", [2, 8, 9])
def test_all_others(n):
    rows = neighbours.iid(n, 5)
    index = np.asarray(self_join(rows, n - 1)[1])
    np.testing.assert_array_equal(np.sort(index, axis=1), [np.delete(np.arange(n), i) for i in range(n)])


@pytest.mark.parametrize(
    ("metric", "threshold"),
    [("cosine", 0.9), *(pytest.param(*x, marks=long) for x in [("euclidean", 2.0), ("cityblock", 6.0)])],
)
@pytest.mark.parametrize("n", [301, pytest.param(300, marks=long)])
def test_pairs_within_a_threshold_are_all_there(metric, threshold, n):
    rows = neighbours.clustered(n, 12, clusters=5, spread=0.5)  # more pairs than there is room for at first
    cost = neighbours.costs(rows, rows, metric)
    limit = 1 - threshold if metric == "cosine" else threshold
    first, second = np.nonzero(np.triu(cost <= limit, 1))
    pairs = self_join(rows, threshold=threshold, metric=metric)
    order = np.lexsort((pairs.second, pairs.first))
    np.testing.assert_array_equal(np.stack([pairs.first, pairs.second])[:, order], [first, second])
    np.testing.assert_allclose(pairs.values[order], neighbours.value(cost[first, second], metric), rtol=2e-5, atol=1e-6)
    assert (np.diff(pairs.values) <= 0).all() if metric == "cosine" else (np.diff(pairs.values) >= 0).all()


@long
def test_pairs_over_several_tiles():
    rows = neighbours.iid(5001, 16)
    rows[4500], rows[3], rows[100], rows[200] = rows[2], rows[2], np.nan, 0
    pairs = self_join(rows, threshold=1 - 1e-7)
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == [(2, 3), (2, 4500), (3, 4500)]
    np.testing.assert_array_equal(pairs.values, 1)


@long
def test_no_pairs():
    assert self_join(np.eye(6), threshold=0.5).first.shape == (0,)


def test_too_little_room_is_reported():
    p = prepare(np.ones((10, 3)), "euclidean")
    result, costs, count = jax.jit(pairs_within, static_argnums=2)(p, jnp.asarray(0.5, jnp.float32), 7)
    assert int(count) == 45
    assert result.shape == (7, 2)
    np.testing.assert_array_equal(costs, 0)


def test_rows_without_a_direction_are_found_last():
    rows = neighbours.iid(30, 3)
    rows[1::6, 0], rows[4::6, 1] = np.nan, np.inf
    values, index = map(np.asarray, self_join(rows, 22))
    want_values, want = map(np.asarray, self_join(rows, 22, implementation="reference"))
    np.testing.assert_array_equal(index, want)
    np.testing.assert_allclose(values, want_values, rtol=1e-5, atol=1e-6)
    assert all(len({i, *row}) == 23 for i, row in enumerate(index))
    assert index.max() < 30


@pytest.mark.parametrize("transform", [lambda f: f, pytest.param(jax.jit, marks=long)], ids=["eager", "jit"])
def test_gradients_are_those_of_the_distances_to_the_rows_found(transform):
    rows = jnp.asarray(neighbours.iid(33, 6))
    index = self_join(rows, 3)[1]

    def gradient(values):
        return jax.grad(lambda x: jnp.sum(jnp.tanh(values(x))))(rows)

    def through_pairs(x):
        result = jnp.take(x, index, axis=0)
        return 1 - paired_distances(jnp.broadcast_to(x[:, None, :], result.shape), result)

    got = transform(lambda: gradient(lambda x: self_join(x, 3)[0]))()
    np.testing.assert_allclose(got, gradient(through_pairs), rtol=1e-4, atol=1e-6)


@long
def test_gradients_of_pairs_within_a_threshold():
    rows = jnp.asarray(neighbours.clustered(40, 5, clusters=3, spread=0.5))

    def total(x):
        _, costs, _ = pairs_within(prepare(x, "euclidean"), jnp.asarray(1.5, jnp.float32), 512)
        return jnp.sum(jnp.where(costs < jnp.inf, costs, 0))

    def through_all(x):
        distances = pairwise_distances(x, metric="euclidean")
        return jnp.sum(jnp.where(distances <= 1.5, distances, 0)) / 2

    np.testing.assert_allclose(total(rows), through_all(rows), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(total)(rows), jax.grad(through_all)(rows), rtol=1e-4, atol=1e-5)


@long
def test_under_jit():
    rows = neighbours.iid(60, 5)
    np.testing.assert_array_equal(jax.jit(lambda x: self_join(x, 3)[1])(rows), self_join(rows, 3)[1])


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({}, "One of"),
        ({"k": 1, "threshold": 0.5}, "One of"),
        ({"k": 6}, "from 1 to 5"),
        ({"threshold": float("nan")}, "number"),
    ],
)
def test_refuses(options, rule):
    with pytest.raises(InvalidInputError, match=rule):
        self_join(np.eye(6), **options)
