"""Paired distances: every variant and metric against float64, then the laws they obey."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import distance

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import paired_distances
from modeldiff_jax.kernels.paired import METRICS, VARIANTS

from . import oracles

SHAPE = (2, 5, 37)  # one for most tests, so that little is compiled
KINDS = ["normal", "softmax", "common"]
SCALE_FREE = ["cosine", "correlation", "jensenshannon", "kl"]
ASYMMETRIC = ["kl"]
PADDING_CHANGES = ["correlation", "hamming"]  # their means are over all entries
LARGEST = {"cosine": 1.0, "correlation": 1.0, "jensenshannon": np.sqrt(np.log(2)), "kl": np.inf}

every_metric = pytest.mark.parametrize("metric", METRICS)
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def vectors(shape, seed=0):
    """Two arrays of positive entries, a third of them equal, so that every metric has something to say."""
    rng = np.random.default_rng(seed)
    a, b = rng.gamma(1.0, size=(2, *shape)) + 0.05
    return a.astype(np.float32), np.where(rng.random(shape) < 0.3, a, b).astype(np.float32)


def near(shape, size, seed=0, kind="normal"):
    """Two arrays of vectors at cosine distances of about `size`, in float32."""
    rng = np.random.default_rng(seed)
    a, noise = rng.standard_normal((2, *shape))
    if kind == "softmax":  # few large entries, many tiny ones, all positive
        a = np.exp(3 * a)
        a /= a.sum(-1, keepdims=True)
        noise *= a
    elif kind == "common":  # a large part in common
        a = 1 + 0.01 * a
    noise *= (
        np.sqrt(2 * size) * np.linalg.norm(a, axis=-1, keepdims=True) / np.linalg.norm(noise, axis=-1, keepdims=True)
    )
    return a.astype(np.float32), (a + noise).astype(np.float32)


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
@pytest.mark.parametrize("shape", [(2, 201, 1000), (2, 200_000)])
def test_many_blocks(metric, shape):
    a, b = vectors(shape)
    np.testing.assert_allclose(paired_distances(a, b, metric), oracles.paired(a, b, metric), rtol=1e-5)


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


# Laws


@every_metric
@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.floats(-20, 20))
def test_laws(metric, seed, exponent):
    a, b = vectors(SHAPE, seed)
    order = np.random.default_rng(seed).permutation(SHAPE[-2])
    columns = np.random.default_rng(seed).permutation(SHAPE[-1])
    got = np.asarray(paired_distances(a, b, metric))
    np.testing.assert_array_equal(paired_distances(a, a, metric), 0)
    np.testing.assert_array_equal(paired_distances(a[:, order], b[:, order], metric), got[:, order])
    np.testing.assert_allclose(paired_distances(a[..., columns], b[..., columns], metric), got, rtol=1e-6)
    if metric not in ASYMMETRIC:
        np.testing.assert_allclose(paired_distances(b, a, metric), got, rtol=1e-6)
    if metric in SCALE_FREE:
        scaled = a * np.float32(10**exponent)
        np.testing.assert_allclose(paired_distances(scaled, b, metric), got, rtol=2e-6)
    if metric not in PADDING_CHANGES:
        padded = (np.pad(x, ((0, 0), (0, 0), (0, 5))) for x in (a, b))
        np.testing.assert_allclose(paired_distances(*padded, metric), got, rtol=1e-6)


@every_variant
@every_metric
def test_batch_loop_jit_and_vmap_agree(variant, metric):
    distances = partial(paired_distances, metric=metric, implementation=variant)
    a, b = vectors(SHAPE)
    got = distances(a, b)
    np.testing.assert_allclose(jax.jit(distances)(a, b), got, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(distances)(a, b), got, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(distances, in_axes=(0, None))(a, b[0])[0], got[0], rtol=1e-6)
    loop = [[distances(x, y) for x, y in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]
    np.testing.assert_allclose(loop, got, rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4), (4,), (1, 1)])
def test_shapes(shape):
    a, b = vectors(shape)
    for metric in METRICS:
        assert paired_distances(a, b, metric).shape == shape[:-1]


def test_blocks_within_vmap_and_grad():
    a, b = vectors((1, 394, 1000))
    np.testing.assert_allclose(jax.vmap(paired_distances)(a, b), oracles.paired(a, b, "cosine"), rtol=2e-6)
    gradient = jax.grad(lambda a, b: paired_distances(a, b).sum())
    few = gradient(a[0, 7:9], b[0, 7:9])
    np.testing.assert_allclose(gradient(a, b)[0, 7:9], few, rtol=1e-4, atol=1e-6 * np.abs(few).max())


# Gradients


@cache
def gradients(metric, variant):
    """Of the sum of all distances, by each side."""
    return jax.jit(jax.grad(lambda a, b: paired_distances(a, b, metric, implementation=variant).sum(), argnums=(0, 1)))


@every_variant
@every_metric
def test_gradients_equal_finite_differences(variant, metric):
    pair = vectors((3, 7), seed=3)
    smooth = pair[0] != pair[1]  # elsewhere hamming jumps and cityblock has a corner
    for side, gradient in enumerate(gradients(metric, variant)(*pair)):
        expected, step = np.zeros((3, 7)), 1e-6
        for index in np.argwhere(smooth if metric != "hamming" else smooth & False):
            above, below = ([x.astype(np.float64) for x in pair] for _ in range(2))
            above[side][tuple(index)] += step
            below[side][tuple(index)] -= step
            rise = oracles.paired(*above, metric).sum() - oracles.paired(*below, metric).sum()
            expected[tuple(index)] = rise / (2 * step)
        np.testing.assert_allclose(np.where(smooth, gradient, 0), expected, rtol=1e-4, atol=1e-6)


@every_variant
def test_gradient_of_a_small_cosine_distance(variant):
    a, b = near((3, 7), 1e-8)
    a_norm, b_norm = (np.linalg.norm(x.astype(float), axis=1, keepdims=True) for x in (a, b))
    u, v = a / a_norm, b / b_norm
    expected = (u - v - np.sum((u - v) ** 2, axis=1, keepdims=True) / 2 * u) / a_norm
    np.testing.assert_allclose(gradients("cosine", variant)(a, b)[0], expected, atol=1e-5 * np.abs(expected).max())


@every_variant
@every_metric
def test_gradients_are_zero_at_equal_vectors(variant, metric):
    a, _ = vectors((3, 7))
    a[1] = 0
    for gradient in gradients(metric, variant)(a, a):
        np.testing.assert_array_equal(gradient, 0)


@every_variant
@pytest.mark.parametrize("metric", LARGEST)
def test_gradients_are_zero_at_zero_vectors(variant, metric):
    a, b = vectors((3, 7))
    for pair in [(0 * a, b), (a, 0 * b)]:
        for gradient in gradients(metric, variant)(*pair):
            np.testing.assert_array_equal(gradient, 0)


@every_variant
@every_metric
def test_gradients_are_finite_with_empty_entries(variant, metric):
    a, b = vectors((3, 7))
    a[:, :2], b[:, 1:3] = 0, 0
    for gradient in gradients(metric, variant)(a, b):
        assert np.isfinite(gradient).all()


# Compiling


@every_metric
def test_same_shapes_are_compiled_once(metric, caplog):
    a, b = map(jnp.asarray, vectors(SHAPE))
    with jax.log_compiles():
        paired_distances(a, b, metric).block_until_ready()
        caplog.clear()
        paired_distances(b, a, metric).block_until_ready()
    assert [record.message for record in caplog.records if "xla" in record.message] == []


def test_a_new_shape_is_seen_to_compile(caplog):
    a, b = map(jnp.asarray, vectors((13, 9)))
    with jax.log_compiles():
        paired_distances(a, b)
    assert any("xla" in record.message for record in caplog.records)


@every_variant
@every_metric
def test_no_matrix_product(variant, metric):
    a, b = vectors((4, 9))
    program = jax.make_jaxpr(lambda a, b: paired_distances(a, b, metric, implementation=variant))(a, b)
    assert "dot_general" not in str(program)


@pytest.mark.parametrize(("platform", "loops"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_blocks_are_for_the_cpu_only(platform, loops):
    shape = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
    text = jax.jit(paired_distances).trace(shape, shape).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.while" in text) == loops


def test_profiles_name_the_kernel():
    a, b = vectors((4, 9))
    assert "paired_distances.xla" in jax.jit(paired_distances).lower(a, b).as_text(debug_info=True)


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
