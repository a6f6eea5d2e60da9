"""Roundings under `jit` against numpy's, bit for bit."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from modeldiff_jax.kernels.rounding import divide, finite_range, multiply_add, rounded, saturate

RNG = np.random.default_rng(0)


def test_exact_ties_stay_ties():
    scale = np.float32(0.1)
    ties = ((np.arange(-2000, 2000) + np.float32(0.5)) * scale).astype(np.float32)
    whole = jax.jit(lambda x, s: jnp.rint(divide(x, s)))(ties, scale)
    np.testing.assert_array_equal(whole, np.rint(ties / scale))


def test_a_product_is_rounded_before_a_sum():
    a, b = (RNG.standard_normal(4000).astype(np.float32) for _ in range(2))
    addend = -(a * b)  # so that a fused sum leaves what the product's rounding lost
    total = jax.jit(lambda a, b, c: rounded(a * b) + c)(a, b, addend)
    np.testing.assert_array_equal(total, np.zeros(4000, np.float32))


def test_rounding_leaves_infinities_and_nan():
    edges = np.float32([-np.inf, np.inf, np.nan, -3.4e38, 0])
    np.testing.assert_array_equal(jax.jit(rounded)(edges), edges)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_multiply_add_rounds_once(dtype):
    x = np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max + 1).astype(dtype)
    for factor, addend in RNG.standard_normal((20, 2)).astype(np.float32):
        got = jax.jit(multiply_add)(jnp.full(x.shape, addend), x, factor)
        exact = np.float64(addend) + x * np.float64(factor)  # at most 24 + 8 bits, and their sum: exact in float64
        np.testing.assert_array_equal(got, exact.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16])
def test_saturation(dtype):
    info = np.iinfo(dtype)
    x = np.float32([-1e9, info.min - 1, info.min, 0, info.max, info.max + 1, 1e9])
    want = [info.min, info.min, info.min, 0, info.max, info.max, info.max]
    got = saturate(jnp.asarray(x), np.dtype(dtype))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("dtype", "ends"),
    [(np.bool_, (False, True)), (np.int8, (-128, 127)), (np.float16, (-65504, 65504)), (ml_dtypes.int4, (-8, 7))],
)
def test_finite_ranges(dtype, ends):
    assert tuple(map(int, finite_range(dtype))) == tuple(map(int, ends))
