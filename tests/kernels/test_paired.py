"""Paired distances: every variant and metric against float64, its rules and its errors."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import paired_distances
from modeldiff_jax.kernels.paired import METRICS, VARIANTS

from . import oracles
from .samples import SHAPE, near, vectors

KINDS = ["normal", "softmax", "common"]
SCALE_FREE = ["cosine", "correlation", "jensenshannon", "kl"]
LARGEST = {"cosine": 1.0, "correlation": 1.0, "jensenshannon": np.sqrt(np.log(2)), "kl": np.inf}

every_metric = pytest.mark.parametrize("metric", METRICS)
every_variant = pytest.mark.parametrize("variant", VARIANTS)


# Agreement with float64


@every_variant
@every_metric
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64", "int32", "uint8", "bool"])
def test_agrees_with_float64(variant, metric, dtype):
    a, b = vectors(SHAPE)
    if dtype == "bool":
        a, b = a > 0.7, b > 0.7
    elif dtype == "float64":
        a, b = a.astype(dtype), b.astype(dtype)
    else:
        a, b = (jnp.asarray(x * (20 if "int" in dtype else 1)).astype(dtype) for x in (a, b))
    got = paired_distances(a, b, metric, implementation=variant)
    assert got.shape == SHAPE[:-1]
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, oracles.paired(a, b, metric), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("metric", [metric for metric in METRICS if hasattr(distance, metric)])
def test_names_mean_what_they_mean_in_scipy(metric):
    a, b = vectors(SHAPE)
    rows = zip(a.reshape(-1, SHAPE[-1]), b.reshape(-1, SHAPE[-1]), strict=True)
    expected = [getattr(distance, metric)(x.astype(float), y.astype(float)) for x, y in rows]
    np.testing.assert_allclose(paired_distances(a, b, metric).ravel(), expected, rtol=2e-6)


@every_variant
@pytest.mark.parametrize("metric", ["cosine", "correlation"])
@pytest.mark.parametrize("c", [3, 10, 1000])
def test_small_angles_keep_their_digits(variant, metric, c):
    cases = [near((20, c), size, kind=kind) for kind in KINDS for size in (1e-2, 1e-5, 1e-7, 1e-8, 3e-9)]
    a, b = (np.stack(side) for side in zip(*cases, strict=True))  # (case, pair, entry)
    scales = np.float32([1, 1, 1e30, 1e-27]), np.float32([1, 3.7, 1e-27, 1.3e30])
    a, b = (np.multiply.outer(scale, x) for scale, x in zip(scales, (a, b), strict=True))
    expected = oracles.paired(a, b, metric)
    worth = expected >= 1e-9
    assert worth.mean() > 0.6
    got = np.asarray(paired_distances(a, b, metric, implementation=variant))
    np.testing.assert_allclose(got[worth], expected[worth], rtol=1e-5)


@every_variant
def test_small_angles_in_the_plane(variant):
    a, b = near((2000, 2), 4e-9)
    a, b = a * np.float32(1e-30), b * np.float32(1e30)
    expected = oracles.paired(a, b, "cosine")
    worth = expected >= 1e-9
    got = np.asarray(paired_distances(a, b, implementation=variant))
    np.testing.assert_allclose(got[worth], expected[worth], rtol=1e-5)


@every_variant
@pytest.mark.parametrize("kind", KINDS)
def test_small_angles_between_very_long_vectors(variant, kind):
    a, b = near((4, 100_000), 1.5e-9, kind=kind)
    b = b * np.float32(1.3)
    expected = oracles.paired(a, b, "cosine")
    np.testing.assert_allclose(paired_distances(a, b, implementation=variant), expected, rtol=1e-5)


@every_variant
@pytest.mark.parametrize(
    "metric", ["chebyshev", "cityblock", "correlation", "euclidean", "jensenshannon", "kl", "sqeuclidean"]
)
def test_small_distances_of_the_other_metrics(variant, metric):
    a, b = (np.abs(x) for x in near((20, 1000), 1e-9, kind="softmax"))
    got = paired_distances(a, b, metric, implementation=variant)
    np.testing.assert_allclose(got, oracles.paired(a, b, metric), rtol=1e-5)


@every_variant
@pytest.mark.parametrize("metric", [*SCALE_FREE, "chebyshev", "cityblock", "euclidean"])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_any_magnitude(variant, metric, scale):
    a, b = (x * np.float32(scale) for x in vectors(SHAPE))
    got = paired_distances(a, b, metric, implementation=variant)
    np.testing.assert_allclose(got, oracles.paired(a, b, metric), rtol=2e-6)


@pytest.mark.parametrize("metric", SCALE_FREE)
def test_the_largest_floats_against_the_smallest(metric):
    a, b = vectors(SHAPE)
    a, b = a / a.max() * np.float32(3.4e38), b / b.max() * np.float32(1e-35)
    np.testing.assert_allclose(paired_distances(a, b, metric), oracles.paired(a, b, metric), rtol=1e-5)


@every_metric
def test_many_blocks(metric):
    a, b = vectors((2, 201, 1000))
    np.testing.assert_allclose(paired_distances(a, b, metric), oracles.paired(a, b, metric), rtol=1e-5)


@pytest.mark.parametrize("c", [10, 1000, pytest.param(3, marks=pytest.mark.long), 1027, 5000])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_large_arrays_hold_to_the_rules_of_small_ones(metric, c):
    n = 400_000 // c + 30
    a, b = vectors((n, c))
    for first, size in ((1, 0.099), (2, 1e-3), (3, 1e-6), (4, 1e-9)):
        a[first::40], b[first::40] = near(a[first::40].shape, size, kind="softmax")
    b[5::40] = a[5::40]
    b[6::40] = -a[6::40]
    a[7::40] *= np.float32(1e-30)
    b[8::40] *= np.float32(1e30)
    unaffected = np.ones(n, bool)
    for row in (9, n - 2):  # one in the middle of a block, one in the block that moves back to fit
        a[row], b[row + 1, 0], unaffected[[row, row + 1]] = 0, np.nan, False
    got, atol = np.asarray(paired_distances(a, b, metric)), 1e-14 if metric == "cosine" else 0  # of 1e-9
    np.testing.assert_allclose(
        got[unaffected], oracles.paired(a[unaffected], b[unaffected], metric), rtol=1e-5, atol=atol
    )
    assert np.isnan(got[[10, n - 1]]).all()
    assert got[9] == (1 if metric == "cosine" else pytest.approx(np.linalg.norm(b[9]), rel=1e-5))


# Rules


@every_variant
@pytest.mark.parametrize("metric", LARGEST)
def test_zero_rule(variant, metric):
    a, b = vectors(SHAPE)
    a[0], b[0], a[1, 0], b[1, 1] = 0, 0, 0, 0
    got = paired_distances(a, b, metric, implementation=variant)
    np.testing.assert_array_equal(got[0], 0)
    np.testing.assert_allclose(got[1, :2], LARGEST[metric], rtol=1e-6)
    np.testing.assert_allclose(got[1, 2:], oracles.paired(a[1, 2:], b[1, 2:], metric), rtol=2e-6)


@every_variant
@pytest.mark.parametrize("level", [1.0, 0.1, 1e-20, -3e7])
def test_constant_vectors_have_no_direction_after_centring(variant, level):
    a, _ = vectors((3, 1000))
    constant = np.full_like(a, level)
    pair = np.stack([constant, a]), np.stack([constant * 2, constant])
    got = paired_distances(*pair, "correlation", implementation=variant)
    np.testing.assert_array_equal(got, [[0, 0, 0], [1, 1, 1]])


@every_variant
@every_metric
@pytest.mark.parametrize("side", [0, 1])
def test_nan_spoils_its_own_pair_only(variant, metric, side):
    pair = vectors(SHAPE)
    pair[1][0, 3] = 0  # NaN against a zero vector is NaN too
    expected = np.array(paired_distances(*pair, metric, implementation=variant))
    for index in [(0, 3), (1, 2)]:
        pair[side][(*index, 5)] = np.nan
        expected[index] = np.nan
    np.testing.assert_array_equal(paired_distances(*pair, metric, implementation=variant), expected)


@every_variant
@pytest.mark.parametrize("metric", SCALE_FREE)
@pytest.mark.parametrize("side", [0, 1])
def test_infinity_has_no_direction(variant, metric, side):
    pair = vectors(SHAPE)
    pair[side][1, 4, 7] = np.inf
    got = paired_distances(*pair, metric, implementation=variant)
    assert np.argwhere(np.isnan(got)).tolist() == [[1, 4]]


@every_variant
@pytest.mark.parametrize("metric", ["jensenshannon", "kl"])
@pytest.mark.parametrize("side", [0, 1])
def test_a_negative_entry_is_no_probability(variant, metric, side):
    pair = vectors(SHAPE)
    pair[side][1, 4, 7] = -1e-3
    got = paired_distances(*pair, metric, implementation=variant)
    assert np.argwhere(np.isnan(got)).tolist() == [[1, 4]]


def test_kl_is_infinite_where_b_excludes_what_a_allows():
    a = np.array([[0.5, 0.5], [1.0, 0.0]], np.float32)
    np.testing.assert_allclose(paired_distances(a, a[::-1], "kl"), [np.inf, np.log(2)], rtol=1e-6)


@every_metric
def test_bounds(metric):
    a = np.random.default_rng(1).standard_normal((200, 3)).astype(np.float32)
    b = np.concatenate([-a[:50], a[50:100] * np.float32(1.1), a[:100]])
    if metric in ["jensenshannon", "kl"]:
        a, b = np.abs(a), np.abs(b)
        a[:100, 0], b[:100, 1:] = 0, 0  # nothing in common
    upper = {"cosine": 2, "correlation": 2, "hamming": 1, "jensenshannon": np.float32(LARGEST["jensenshannon"])}
    got = np.asarray(paired_distances(a, b, metric))
    assert (got >= 0).all()
    assert (got <= upper.get(metric, np.inf)).all()


# Errors


def test_shapes_must_be_equal():
    with pytest.raises(InvalidInputError, match=r"one shape \(\.\.\., N, C\).*Got: \(2, 3\) and \(2, 4\)"):
        paired_distances(np.ones((2, 3)), np.ones((2, 4)))


def test_broadcasting_is_refused():
    with pytest.raises(InvalidInputError, match=r"Got: \(2, 3\) and \(3,\)"):
        paired_distances(np.ones((2, 3)), np.ones(3))


def test_unknown_metric():
    with pytest.raises(InvalidInputError, match=r"one of chebyshev, .*sqeuclidean.*Got: 'cosin'"):
        paired_distances(np.ones((2, 3)), np.ones((2, 3)), "cosin")


def test_unknown_variant():
    with pytest.raises(InvalidInputError, match=r"None or one of xla, reference.*Got: 'cuda'"):
        paired_distances(np.ones((2, 3)), np.ones((2, 3)), implementation="cuda")
