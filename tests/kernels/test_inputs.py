"""Conversion of array arguments."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.inputs import as_float32


class Foreign:
    """Another library's array, known by its dlpack methods only."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Unreadable(Foreign):
    def __dlpack__(self, **options):
        raise BufferError("this array requires a gradient")


@pytest.mark.parametrize(
    "make", [np.asarray, jnp.asarray, lambda x: Foreign(np.asarray(x)), lambda x: Foreign(jnp.asarray(x))]
)
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "uint8"])
def test_arrays_of_every_library(make, dtype):
    got = as_float32(make(np.arange(6, dtype=dtype).reshape(2, 3)), "kernel: a")
    assert isinstance(got, jax.Array)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    "x",
    [np.ones(3, ml_dtypes.bfloat16), jnp.ones(3, jnp.bfloat16), Foreign(jnp.ones(3, jnp.bfloat16)), np.ones(3, bool)],
)
def test_types_numpy_does_not_know_or_count(x):
    np.testing.assert_array_equal(as_float32(x, "kernel: a"), [1, 1, 1])


@pytest.mark.parametrize("wrap", [lambda x: x, Foreign])
def test_64_bits_are_rounded_and_not_wrapped(wrap):
    np.testing.assert_array_equal(as_float32(wrap(np.array([2**40 + 1, -(2**62)])), "kernel: a"), [2.0**40, -(2.0**62)])
    wide = np.array([1 + 2**-30, 1e60, -1e60, 1e-60])
    np.testing.assert_array_equal(as_float32(wrap(wide), "kernel: a"), [1, np.inf, -np.inf, 0])


def test_the_copy_is_not_changed_by_later_writes():
    x = np.ones((1024, 64), np.float32)
    got = as_float32(x, "kernel: a")
    x[:] = 7
    np.testing.assert_array_equal(got, 1)


def test_tracers_pass():
    assert jax.jit(lambda x: as_float32(x, "kernel: a"))(jnp.ones(3, jnp.int8)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([1.0, 2.0], "numpy, jax or dlpack array. Got: list.*numpy.asarray"),
        (1.0, "Got: float"),
        ("text", "Got: str"),
        (np.array(["text"]), "real numbers. Got: dtype <U4"),
        (np.ones(3, np.complex64), "real numbers. Got: dtype complex64"),
        (np.array([None]), "real numbers. Got: dtype object"),
        (np.float32(3) + np.zeros(()), "Got: float"),
        (np.zeros(()), r"at least one. Got: shape \(\)"),
        (np.zeros((3, 0)), r"at least one. Got: shape \(3, 0\)"),
        (Unreadable(np.ones(3)), "can be read by jax. Got: this array requires a gradient"),
    ],
)
def test_what_is_refused(x, message):
    with pytest.raises(InvalidInputError, match=message) as raised:
        as_float32(x, "kernel: a")
    assert raised.value.where == "kernel: a"
