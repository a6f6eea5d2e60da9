"""Pairwise distances: near pairs, square and condensed forms, models at once, widths that differ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import paired_distances, pairwise, pairwise_distances, ragged_distances
from modeldiff_jax.kernels.paired import METRICS
from modeldiff_jax.kernels.pairwise import VARIANTS, triangle

from . import oracles
from .samples import near, vectors

BY_PRODUCT = ["correlation", "cosine", "euclidean", "sqeuclidean"]
SYMMETRIC = [metric for metric in METRICS if metric != "kl"]
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def some_long(default, every):
    """Yields `every` case; those that are not in `default` are for the long step."""
    return [one if one in default else pytest.param(one, marks=pytest.mark.long) for one in every]


def clusters(count, c, seed=0):
    """Vectors around `count` others, at distances over nine orders of magnitude."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((count, c))
    return np.concatenate([centres + 10.0**-k * rng.standard_normal((count, c)) for k in range(9)])


# Accuracy


@pytest.mark.parametrize("offset", [0, 100])
@pytest.mark.parametrize("metric", some_long(["cosine", "euclidean"], BY_PRODUCT))
def test_no_distance_loses_its_digits(metric, offset):
    x = (clusters(7, 300) + offset).astype(np.float32)
    want = oracles.pairwise(x, x, metric)
    worth = want >= 1e-9
    assert worth.mean() > 0.85
    for got in (pairwise_distances(x, None, metric), pairwise_distances(x, x.copy(), metric)):
        np.testing.assert_allclose(np.asarray(got)[worth], want[worth], rtol=1e-5)


@every_variant
@pytest.mark.parametrize("c", [3, 1000])
def test_cosine_to_one_in_a_billion(variant, c):
    for size in (1e-2, 1e-5, 1e-7, 3e-9):
        a, b = near((8, c), size)
        want = oracles.pairwise(a, b, "cosine")
        got = np.asarray(pairwise_distances(a, b, implementation=variant))
        np.testing.assert_allclose(got[want >= 1e-9], want[want >= 1e-9], rtol=1e-5)


@every_variant
def test_euclidean_at_an_offset(variant):
    rng = np.random.default_rng(0)
    a = (100 + rng.standard_normal((9, 1000))).astype(np.float32)
    step = rng.standard_normal(a.shape)
    b = (a + 1e-3 * step / np.linalg.norm(step, axis=1, keepdims=True)).astype(np.float32)
    want = oracles.pairwise(a, b, "euclidean")
    got = pairwise_distances(a, b, "euclidean", implementation=variant)
    np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.049, 0.051, 0.2])
def test_no_step_where_near_begins(share):
    rng = np.random.default_rng(1)
    a, r = rng.standard_normal((2, 400))
    r -= r @ a / (a @ a) * a
    r *= np.linalg.norm(a) / np.linalg.norm(r)
    angles = np.arccos(1 - share - np.linspace(-1e-4, 1e-4, 40) * (share > 0))
    b = (np.cos(angles)[:, None] * a + np.sin(angles)[:, None] * r).astype(np.float32)
    a = a[None].astype(np.float32)
    want = oracles.pairwise(a, b, "cosine")
    np.testing.assert_allclose(pairwise_distances(a, b), want, rtol=1e-5, atol=1e-14)


@pytest.mark.parametrize("kind", some_long(["normal"], ["normal", "softmax", "common"]))
@pytest.mark.parametrize("c", some_long([10], [10, 20_000]))
def test_the_products_error_is_small_where_it_is_kept(kind, c):
    x, _ = near((10, c), 0.1, kind=kind)
    for metric in BY_PRODUCT:
        want = oracles.pairwise(x, x, metric)
        np.testing.assert_allclose(pairwise_distances(x, None, metric), want, rtol=1e-5, atol=1e-14)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_any_magnitude(metric, scale):
    a, b = (x * np.float32(scale) for x in vectors((6, 11)))
    np.testing.assert_allclose(pairwise_distances(a, b, metric), oracles.pairwise(a, b, metric), rtol=1e-5)


# Forms


@pytest.mark.parametrize("variant", some_long(["xla"], VARIANTS))
@pytest.mark.parametrize("metric", some_long(["cosine", "euclidean", "kl"], METRICS))
def test_square_of_many_models(variant, metric):
    x = vectors((3, 23, 9))[0]
    x[1, 4] = x[1, 7]
    got = np.asarray(pairwise_distances(x, None, metric, implementation=variant))
    want = np.nan_to_num(oracles.pairwise(x, x, metric))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(np.diagonal(got, axis1=1, axis2=2), 0)
    if metric in SYMMETRIC:
        np.testing.assert_array_equal(got, got.swapaxes(1, 2))


@pytest.mark.parametrize("metric", some_long(["cosine"], ["cosine", "euclidean", "cityblock", "jensenshannon"]))
def test_large_enough_for_parts_and_many_tiles(metric):
    x = np.abs(clusters(44, 40)[:391]).astype(np.float32)
    got = np.asarray(pairwise_distances(x, None, metric))
    np.testing.assert_array_equal(got, got.T)
    some = np.random.default_rng(0).permutation(391)[:40]
    want = np.nan_to_num(oracles.pairwise(x[some], x, metric))
    np.testing.assert_allclose(got[some], want, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 30])
def test_condensed_is_scipys(n):
    x = vectors((2, n, 7))[0]
    got = pairwise_distances(x, metric="euclidean", condensed=True)
    assert got.shape == (2, n * (n - 1) // 2)
    for output, model in zip(got, x, strict=True):
        np.testing.assert_allclose(output, distance.pdist(model.astype(float)) if n > 1 else [], rtol=1e-5)


@pytest.mark.parametrize("n", [2, 3, 100, 46_340])
def test_places_in_the_condensed_form(n):
    total = n * (n - 1) // 2
    k = np.unique(
        np.clip(np.r_[0:2000, total - 2000 : total, np.linspace(0, total - 1, 999).astype(int)], 0, total - 1)
    )
    i, j = (np.asarray(x, np.int64) for x in triangle(jnp.asarray(k.astype(np.int32)), n))
    assert (i < j).all()
    assert (j < n).all()
    np.testing.assert_array_equal(i * n - i * (i + 1) // 2 + j - i - 1, k)


@pytest.mark.parametrize("shapes", [((0, 4), (3, 4)), ((3, 4), (0, 4)), ((0, 2, 4), (0, 3, 4)), ((1, 4), (1, 4))])
@pytest.mark.parametrize("metric", ["cosine", "kl"])
def test_sizes(metric, shapes):
    a, b = (np.ones(shape, np.float32) for shape in shapes)
    assert pairwise_distances(a, b, metric).shape == (*shapes[0][:-1], shapes[1][-2])
    assert pairwise_distances(a, None, metric).shape == (*shapes[0][:-1], shapes[0][-2])


# Rules


@pytest.mark.parametrize("variant", some_long(["xla"], VARIANTS))
@pytest.mark.parametrize("metric", some_long(["cosine"], ["cosine", "correlation", "jensenshannon"]))
def test_zero_and_nan_rules_are_those_of_pairs(variant, metric):
    a, b = vectors((6, 9))
    a[1], a[4], b[2], b[3] = 0, 0, 0, np.nan
    want = np.stack([paired_distances(np.broadcast_to(row, b.shape), b, metric) for row in a])
    got = pairwise_distances(a, b, metric, implementation=variant)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
    square = np.asarray(pairwise_distances(b, None, metric, implementation=variant))
    assert np.isnan(square[3]).all()
    assert np.isnan(square[:, 3]).all()
    assert square[2, 2] == 0


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_infinity_in_one_vector_leaves_the_others(metric):
    a, b = vectors((6, 9))
    want = np.array(pairwise_distances(a, b, metric))
    b[2, 5] = np.inf
    want[:, 2] = np.nan if metric == "cosine" else np.inf
    np.testing.assert_allclose(pairwise_distances(a, b, metric), want, rtol=1e-5)


# Gradients


@pytest.mark.parametrize("metric", some_long(["cosine"], BY_PRODUCT))
def test_gradients_of_near_pairs(metric):
    x = clusters(2, 13).astype(np.float32)
    n = len(x)
    weights = np.random.default_rng(3).standard_normal((n, n)).astype(np.float32)

    def through_pairs(x):
        i, j = (k.ravel() for k in np.indices((n, n)))
        return jnp.sum(paired_distances(x[i], x[j], metric) * weights.ravel())

    got = jax.grad(lambda x: jnp.sum(pairwise_distances(x, None, metric) * weights))(x)
    want = jax.grad(through_pairs)(x)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())


def test_gradients_keep_no_array_of_all_differences():
    shape = jax.ShapeDtypeStruct((128, 1024), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(pairwise_distances(x, None, "euclidean"))))
    memory = gradient.lower(shape).compile().memory_analysis().temp_size_in_bytes
    assert memory < 128 * 128 * 1024 * 4 / 2


# Widths that differ


@pytest.mark.parametrize("metric", some_long(["cosine", "hamming"], METRICS))
def test_padding_is_exact(metric, monkeypatch):
    widths = (9, 10, 33, 40, 9)
    reactions = [vectors((7, c), seed)[0] for seed, c in enumerate(widths)]
    got = ragged_distances(reactions, metric)
    for output, x in zip(got, reactions, strict=True):
        want = np.nan_to_num(oracles.pairwise(x, x, metric))
        np.testing.assert_allclose(output, want, rtol=2e-6, atol=1e-7)
    shapes = []
    monkeypatch.setattr(
        "modeldiff_jax.kernels.ragged.pairwise_distances",
        lambda x, *rest, **options: shapes.append(x.shape) or pairwise_distances(x, *rest, **options),
    )
    ragged_distances(reactions, metric)
    assert sorted(shapes) == sorted(
        [(2, 7, 9), (1, 7, 10), (1, 7, 33), (1, 7, 40)] if metric == "correlation" else [(3, 7, 10), (2, 7, 40)]
    )


def test_ragged_refuses_what_is_no_matrix():
    with pytest.raises(InvalidInputError, match=r"reactions\[1\]"):
        ragged_distances([np.ones((2, 3)), np.ones(3)])


# Errors


@pytest.mark.parametrize(
    ("shapes", "metric", "condensed", "message"),
    [
        (((3,),), "cosine", False, r"\(\.\.\., N, C\).*Got: \(3,\)"),
        (((2, 3), (2, 4)), "cosine", False, r"\(2, 3\) and \(2, 4\)"),
        (((2, 2, 3), (1, 2, 3)), "cosine", False, r"\(2, 2, 3\) and \(1, 2, 3\)"),
        (((2, 3),), "cosin", False, "one of chebyshev.*Got: 'cosin'"),
        (((2, 3), (2, 3)), "cosine", True, "condensed.*Got: two arrays"),
        (((2, 3),), "kl", True, "condensed.*Got: metric 'kl'"),
    ],
)
def test_what_is_refused(shapes, metric, condensed, message):
    arrays = [np.ones(shape, np.float32) for shape in shapes]
    with pytest.raises(InvalidInputError, match=message):
        pairwise_distances(arrays[0], arrays[1] if len(arrays) > 1 else None, metric, condensed=condensed)


def test_a_tile_fits_the_matrix():
    for rows, width in [(1, 1), (5, 10**6), (3000, 7)]:
        for tile in pairwise._tile(rows, None, width, 2**16), pairwise._tile(rows, rows, width, 2**16):
            assert all(1 <= size <= rows for size in tile)
