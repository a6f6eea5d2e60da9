"""The k largest scores: every variant against a stable sort in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import largest
from modeldiff_jax.kernels.largest import VARIANTS

own_error = pytest.mark.types_unchecked("the error is the product's own")
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def oracle(scores, k):
    scores = np.asarray(scores, np.float64)
    order = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), axis=-1, kind="stable")[..., :k]
    return np.take_along_axis(scores, order, -1), order


def assert_exact(scores, k, variant=None):
    values, indices = largest(scores, k, implementation=variant)
    expected, order = oracle(scores, k)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(values, expected.astype(np.float32))
    assert (values.dtype, indices.dtype) == (jnp.float32, jnp.int32)


@every_variant
@pytest.mark.parametrize(
    ("n", "k"), [(1, 1), (7, 7), (64, 1), (1000, 10), (1009, 10), (4096, 3), (20_011, 16), (9000, 2048), (3000, 3000)]
)
def test_sizes(variant, n, k):
    assert_exact(np.random.default_rng(n).standard_normal((3, n)).astype(np.float32), k, variant)


@every_variant
@pytest.mark.parametrize("levels", [1, 2, 5, 300])
def test_ties_are_ordered_by_index(variant, levels):
    scores = np.random.default_rng(levels).integers(0, levels, (20, 5003)).astype(np.float32) - 1
    scores[::2] *= np.where(np.arange(5003) % 3 == 0, np.float32(-1), np.float32(1))  # makes -0 too
    assert_exact(scores, 37, variant)


@every_variant
def test_not_a_number_ranks_last_with_minus_infinity(variant):
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((6, 999)).astype(np.float32)
    scores[0, ::2], scores[1, :], scores[2, :995], scores[3, 5] = np.nan, np.nan, np.nan, -np.float32(np.nan)
    scores[4, rng.random(999) < 0.9] = -np.inf
    scores[4, 100:700:7] = np.nan
    scores[5, 77] = np.inf
    assert_exact(scores, 30, variant)


@pytest.mark.parametrize("n", [5001, pytest.param(5005, marks=pytest.mark.long)])
def test_one_nan_hides_none_of_its_neighbours(n):
    scores = np.random.default_rng(0).standard_normal((50, n)).astype(np.float32)
    scores[np.arange(50), np.arange(50) * 7 + 3] = np.nan
    scores[np.arange(50), np.arange(50) * 7 + 2] = 9
    assert_exact(scores, 4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "int32", "bool"])
def test_types(dtype):
    scores = 3 * np.random.default_rng(0).standard_normal((4, 1500))
    scores = scores.astype(np.float32).astype(dtype) if dtype == "float64" else jnp.asarray(scores).astype(dtype)
    assert_exact(np.asarray(scores) if dtype == "float64" else scores, 12)


@pytest.mark.long
def test_jit_vmap_and_leading_axes_agree():
    scores = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 2000)), jnp.float32)
    expected = largest(scores, 9)
    for got in (
        jax.jit(lambda s: largest(s, 9))(scores),
        jax.vmap(lambda s: largest(s, 9))(scores),
        jax.vmap(jax.vmap(lambda s: largest(s, 9)))(scores),
    ):
        jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert largest(scores[:, :0], 9)[0].shape == (2, 0, 9)


@every_variant
def test_gradients_select_the_scores_found(variant):
    scores = jnp.asarray(np.random.default_rng(0).standard_normal((3, 999)), jnp.float32)
    index = np.asarray(largest(scores, 4)[1])
    gradient = jax.grad(lambda s: jnp.sum(largest(s, 4, implementation=variant)[0] ** 2) / 2)(scores)
    want = np.zeros(scores.shape, np.float32)
    np.put_along_axis(want, index, np.take_along_axis(np.asarray(scores), index, 1), 1)
    np.testing.assert_allclose(gradient, want, rtol=1e-6)


@pytest.mark.parametrize("k", [0, -1, 6, pytest.param(2.0, marks=own_error), True])
def test_refuses_a_count_that_is_not_there(k):
    with pytest.raises(InvalidInputError, match="from 1 to 5"):
        largest(np.zeros((2, 5), np.float32), k)


@pytest.mark.parametrize("n", [200_000, pytest.param(1_000_003, marks=pytest.mark.long)])
def test_a_cpu_never_sorts_a_whole_row(n):
    shape = jax.ShapeDtypeStruct((2, n), jnp.float32)
    program = jax.jit(lambda s: largest(s, 10)).lower(shape).as_text()
    widths = [int(line.split("tensor<2x")[1].split("x")[0]) for line in program.splitlines() if "chlo.top_k" in line]
    assert widths
    assert max(widths) < n / 100
