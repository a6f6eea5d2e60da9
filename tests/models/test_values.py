"""Types and values that fit an input."""

import ml_dtypes
import numpy as np
import pytest

from modeldiff_jax.models.values import misfit
from modeldiff_jax.types import STRING


@pytest.mark.parametrize(
    ("value", "dtype", "says"),
    [
        (np.float64([0.1]), np.float32, ""),
        (np.float64([1e300]), np.float16, ""),
        (np.int64([2**60]), np.float32, ""),
        (np.bool_([True]), np.int8, ""),
        (np.float32([1]), np.complex64, ""),
        (np.float32([2.0]), np.int64, "dtype float32"),
        (np.complex64([1]), np.float32, "dtype complex64"),
        (np.int64([1]), bool, "dtype int64"),
        (np.int64([-1]), np.uint8, "values from -1 to -1"),
        (np.int64([0, 255]), np.uint8, ""),
        (np.int64([0, 256]), np.uint8, "values from 0 to 256"),
        (np.uint64([2**63]), np.int64, f"values from {2**63} to {2**63}"),
        (np.int64([-8, 7]), ml_dtypes.int4, ""),
        (np.int64([8]), ml_dtypes.int4, "values from 8 to 8"),
        (np.float32([1]), ml_dtypes.int4, "dtype float32"),
        (np.float32([1]), ml_dtypes.bfloat16, ""),
        (ml_dtypes.bfloat16(1), np.float32, ""),
        (np.zeros(0, np.int64), np.uint8, ""),
        (np.array(["a"]), STRING, ""),
        (np.array(["a", 1], object), STRING, "dtype object"),
        (np.array(["a"]), np.float32, "dtype <U1"),
        (np.array([2**70]), np.int64, "dtype object"),
    ],
)  # fmt: skip
def test_misfit(value, dtype, says):
    assert misfit(np.asarray(value), np.dtype(dtype)) == says
