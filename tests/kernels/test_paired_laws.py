"""Paired distances: their laws, their gradients, and the compiled programs."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeldiff_jax.kernels import paired_distances
from modeldiff_jax.kernels.paired import METRICS, VARIANTS

from . import oracles
from .samples import SHAPE, near, vectors

SCALE_FREE = ["cosine", "correlation", "jensenshannon", "kl"]
ASYMMETRIC = ["kl"]
PADDING_CHANGES = ["correlation", "hamming"]  # their means are over all entries

every_metric = pytest.mark.parametrize("metric", METRICS)
every_variant = pytest.mark.parametrize("variant", VARIANTS)


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
    np.testing.assert_allclose(jax.jit(jax.vmap(distances))(a, b), got, rtol=1e-6)
    loop = [[distances(x, y) for x, y in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]
    np.testing.assert_allclose(loop, got, rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4), (4,), (1, 1)])
@pytest.mark.parametrize("metric", ["cosine", "chebyshev"])
def test_shapes(metric, shape):
    a, b = vectors(shape)
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
@pytest.mark.parametrize("metric", SCALE_FREE)
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
