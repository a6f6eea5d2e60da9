"""Products of 8-bit integers against exact arithmetic in int64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import integer_products
from modeldiff_jax.kernels.integer_products import integer_convolution, integer_matmul, largest_magnitude, requantize

RNG = np.random.default_rng(0)


@pytest.fixture(params=[integer_products._WRITTEN_OUT, 1], ids=["written out", "in a loop"])
def form(request, monkeypatch):
    """A few pieces are written out; many are added up by a loop."""
    monkeypatch.setattr(integer_products, "_WRITTEN_OUT", request.param)


def eight_bits(dtype, *shape):
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max, shape, dtype, endpoint=True)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("a_type", [np.uint8, np.int8])
@pytest.mark.parametrize("b_type", [np.uint8, np.int8])
@pytest.mark.parametrize("length", [1, 257, 2000])
def test_matrix_products(a_type, b_type, length):
    a, b = eight_bits(a_type, 3, length), eight_bits(b_type, length, 4)
    a[0], b[:, 0] = np.iinfo(a_type).max, np.iinfo(b_type).max
    zeros = a_type(np.iinfo(a_type).min), b_type(np.iinfo(b_type).min)
    want = (a.astype(np.int64) - zeros[0]) @ (b.astype(np.int64) - zeros[1])
    got = jax.jit(lambda a, b: integer_matmul(a, np.asarray(zeros[0]), b, np.asarray(zeros[1])))(a, b)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(integer_matmul(a, None, b, None), a.astype(np.int64) @ b.astype(np.int64))


def test_zero_points_of_rows_and_columns():
    a, b = eight_bits(np.uint8, 3, 40), eight_bits(np.int8, 40, 5)
    rows, columns = np.uint8([1, 2, 255]), np.int8([0, -128, 2, 3, 127])
    want = (a.astype(np.int64) - rows[:, None]) @ (b.astype(np.int64) - columns)
    np.testing.assert_array_equal(integer_matmul(a, rows, b, columns), want)


def test_a_sum_of_nothing_is_zero():
    empty = np.zeros((2, 0), np.uint8)
    np.testing.assert_array_equal(integer_matmul(empty, None, empty.T, None), np.zeros((2, 2)))


def test_inner_sizes_must_be_equal():
    with pytest.raises(InvalidInputError, match="inner"):
        integer_matmul(np.zeros((2, 3), np.int8), None, np.zeros((4, 2), np.int8), None)


CASES = {  # input, filter, groups, strides, padding, dilation
    "dense": ((2, 3, 6, 7), (4, 3, 3, 3), 1, (1, 1), ((1, 1), (0, 2)), (1, 1)),
    "many channels": ((1, 200, 5, 5), (2, 200, 3, 3), 1, (2, 1), ((1, 1), (1, 1)), (1, 1)),
    "long filter": ((1, 1, 40, 40), (2, 1, 25, 25), 1, (1, 2), ((3, 0), (0, 4)), (1, 1)),
    "grouped, dilated": ((1, 8, 9, 9), (4, 4, 2, 3), 2, (1, 1), ((0, 0), (1, 1)), (3, 2)),
    "depthwise": ((1, 5, 9, 9), (5, 1, 3, 3), 5, (2, 2), ((1, 0), (0, 1)), (1, 1)),
}


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_convolutions(case):
    x_shape, w_shape, groups, strides, padding, dilation = case
    x, w = eight_bits(np.uint8, *x_shape), eight_bits(np.int8, *w_shape)
    x_zero, w_zero = np.uint8(9), eight_bits(np.int8, w_shape[0])
    options = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
    got = jax.jit(lambda x, w: integer_convolution(x, np.asarray(x_zero), w, w_zero, **options))(x, w)
    want = lax.conv_general_dilated(
        jnp.asarray(x, np.int32) - jnp.int32(x_zero),
        jnp.asarray(w, np.int32) - jnp.asarray(w_zero, np.int32)[:, None, None, None],
        *(strides, padding),
        rhs_dilation=dilation,
        feature_group_count=groups,
    )
    np.testing.assert_array_equal(got, want)


def test_requantisation_rounds_halves_to_even_and_saturates():
    total = np.int32([1, 3, -1, -3, 5, 10_000, -10_000])
    got = requantize(jnp.asarray(total), jnp.float32(0.5), np.asarray(np.int8(1)))
    np.testing.assert_array_equal(got, np.int8([1, 3, 1, -1, 3, 127, -128]))


@pytest.mark.parametrize(
    ("dtype", "zero_point", "bound"),
    [
        (np.uint8, None, 255),
        (np.int8, None, 128),
        (np.uint8, np.asarray(np.uint8(128)), 128),
        (np.int8, jnp.int8(3), 255),
    ],
)
def test_bounds_on_magnitudes(dtype, zero_point, bound):
    assert largest_magnitude(dtype, zero_point) == bound
