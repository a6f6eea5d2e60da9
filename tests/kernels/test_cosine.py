"""Cosine similarity: every variant against float64, then the laws it obeys."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import cosine_similarity
from modeldiff_jax.kernels.cosine import VARIANTS

from . import oracles

every_variant = pytest.mark.parametrize("variant", VARIANTS)


def matrices(m=7, k=5, d=23, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((m, d)).astype(np.float32), rng.standard_normal((k, d)).astype(np.float32)


@every_variant
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64", "int32", "bool"])
def test_agrees_with_float64(variant, dtype):
    a, b = (x.astype(dtype) if dtype == "float64" else jnp.asarray(3 * x).astype(dtype) for x in matrices())
    got = cosine_similarity(a, b, implementation=variant)
    assert got.shape == (7, 5)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, oracles.cosine_similarity(a, b), atol=5e-7)


@every_variant
@pytest.mark.parametrize("d", [1, 2, 1000, 100_000])
def test_one_matrix_with_itself(variant, d):
    a, _ = matrices(d=d)
    got = np.asarray(cosine_similarity(a, implementation=variant))
    np.testing.assert_array_equal(got, got.T)
    assert (np.diag(got) >= 1 - 1e-6).all()
    assert (np.abs(got) <= 1).all()
    np.testing.assert_allclose(got, oracles.cosine_similarity(a, a), atol=1e-6)


@every_variant
def test_any_magnitude(variant):
    a, b = matrices()
    expected = oracles.cosine_similarity(a, b)
    got = cosine_similarity(a * np.float32(1e-30), b * np.float32(1e30), implementation=variant)
    np.testing.assert_allclose(got, expected, atol=5e-7)
    np.testing.assert_allclose(
        cosine_similarity(a / np.abs(a).max() * np.float32(3.4e38), b, implementation=variant), expected, atol=5e-7
    )


@every_variant
def test_zero_rule(variant):
    a, b = matrices()
    a[1], b[3] = 0, 0
    got = np.asarray(cosine_similarity(a, b, implementation=variant))
    np.testing.assert_array_equal(got[1], [0, 0, 0, 1, 0])
    np.testing.assert_array_equal(got[:, 3], [0, 1, 0, 0, 0, 0, 0])
    itself = np.asarray(cosine_similarity(a, implementation=variant))
    np.testing.assert_array_equal(itself[1], np.eye(7)[1])


@every_variant
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_spoil_their_own_row_or_column_only(variant, value):
    a, b = matrices()
    expected = np.array(cosine_similarity(a, b, implementation=variant))
    a[2, 4], b[1, 0] = value, value
    expected[2], expected[:, 1] = np.nan, np.nan
    np.testing.assert_allclose(cosine_similarity(a, b, implementation=variant), expected, atol=2e-7)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.floats(-20, 20))
def test_laws(seed, exponent):
    a, b = matrices(seed=seed)
    order = np.random.default_rng(seed).permutation(7)
    got = np.asarray(cosine_similarity(a, b))
    close = partial(np.testing.assert_allclose, atol=3e-7)
    close(cosine_similarity(b, a), got.T)
    close(cosine_similarity(a[order], b), got[order])
    close(cosine_similarity(a * np.float32(10**exponent), -b), -got)
    close(cosine_similarity(*(np.pad(x, ((0, 0), (0, 9))) for x in (a, b))), got)


@every_variant
def test_jit_vmap_and_loop_agree(variant):
    similarity = partial(cosine_similarity, implementation=variant)
    a, b = matrices(m=6)
    got = similarity(a, b)
    close = partial(np.testing.assert_allclose, atol=2e-7)
    close(jax.jit(similarity)(a, b), got)
    close(jax.vmap(similarity, in_axes=(0, None))(a.reshape(3, 2, -1), b).reshape(6, 5), got)
    close(np.concatenate([similarity(row[None], b) for row in a]), got)


@pytest.mark.parametrize(("m", "k"), [(0, 3), (3, 0), (1, 1)])
def test_sizes(m, k):
    a, b = matrices(m, k)
    assert cosine_similarity(a, b).shape == (m, k)
    assert cosine_similarity(a).shape == (m, m)


@every_variant
def test_gradient(variant):
    a, b = matrices(3, 2, 5)
    gradient = jax.grad(lambda a: cosine_similarity(a, b, implementation=variant).sum())(jnp.asarray(a))
    expected, step = np.zeros_like(a), 1e-6
    for index in np.ndindex(a.shape):
        above, below = a.astype(float), a.astype(float)
        above[index] += step
        below[index] -= step
        rise = oracles.cosine_similarity(above, b).sum() - oracles.cosine_similarity(below, b).sum()
        expected[index] = rise / (2 * step)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


@every_variant
def test_gradient_is_zero_at_zero_vectors(variant):
    a, b = matrices()
    a[1], b[0] = 0, 0
    similarity = partial(cosine_similarity, implementation=variant)
    by_a, by_b = jax.grad(lambda a, b: similarity(a, b).sum(), argnums=(0, 1))(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_array_equal(by_a[1], 0)
    np.testing.assert_array_equal(by_b[0], 0)
    assert np.isfinite(by_a).all()
    assert np.isfinite(jax.grad(lambda a: similarity(a).sum())(jnp.asarray(a))).all()


@pytest.mark.parametrize("setting", ["default", "bfloat16"])
def test_the_precision_setting_changes_nothing(setting):
    a, b = matrices()
    with jax.default_matmul_precision(setting):
        program = str(jax.make_jaxpr(lambda a, b: cosine_similarity(a, b, implementation="xla"))(a, b))
    assert program.count("dot_general") == 1
    assert "precision=(Precision.HIGHEST, Precision.HIGHEST)" in program.replace("lax.", "")


def test_same_shapes_are_compiled_once(caplog):
    a, b = map(jnp.asarray, matrices(4, 3, 29))
    with jax.log_compiles():
        cosine_similarity(a, b).block_until_ready()
        assert any("xla" in record.message for record in caplog.records)
        caplog.clear()
        cosine_similarity(a + 1, b).block_until_ready()
    assert [record.message for record in caplog.records if "xla" in record.message] == []


def test_profiles_name_the_kernel():
    assert "cosine_similarity.xla" in jax.jit(cosine_similarity).lower(*matrices()).as_text(debug_info=True)


@pytest.mark.parametrize(
    ("shapes", "got"),
    [
        ([(3,)], r"\(3,\)"),
        ([(2, 3, 4)], r"\(2, 3, 4\)"),
        ([(2, 3), (2, 4)], r"\(2, 3\) and \(2, 4\)"),
        ([(2, 3), (3,)], r"\(2, 3\) and \(3,\)"),
    ],
)
def test_shapes_that_do_not_fit(shapes, got):
    with pytest.raises(InvalidInputError, match=rf"`a` is \(M, D\) and `b` is \(K, D\).*Got: {got}"):
        cosine_similarity(*map(np.ones, shapes))


def test_unknown_variant():
    with pytest.raises(InvalidInputError, match=r"one of xla, reference.*Got: 'faiss'"):
        cosine_similarity(np.ones((2, 3)), implementation="faiss")
