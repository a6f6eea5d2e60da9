"""When two outputs agree: one rule for each type, for the verdict and for the table."""

import ml_dtypes
import numpy as np
import pytest

from modeldiff_jax.models.agreement import EXACT, compare_output, tolerance

FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]


@pytest.mark.parametrize(
    ("output", "reference", "error", "span"),
    [
        ([0.0, 1.0], [0.0, 2.0], 1.0, 2.0),
        ([3.0, 3.0], [3.5, 3.5], 0.5, 3.5),
        ([0.0, 0.5], [0.0, 0.0], 0.5, 1.0),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0, 1.0),
        ([np.inf, 1.0, 2.0], [np.inf, 1.0, 2.0], 0.0, 1.0),
        ([np.nan, 1.0, 2.0], [0.0, 1.0, 2.0], np.inf, 2.0),
        ([1.0, 1.0, 2.0], [np.inf, 1.0, 2.0], np.inf, 1.0),
        ([-np.inf, 1.0, 2.0], [np.inf, 1.0, 2.0], np.inf, 1.0),
        ([1.0], [1.0, 2.0], np.inf, 1.0),
        ([], [], 0.0, 1.0),
        ([True, False], [True, True], 1.0, 1.0),
        ([2**60 + 1], [2**60], 1.0, 2.0**60),
        ([1j, 2.0], [1j, 2.5], 0.5, 2.5),
        (["a", "b"], ["a", "c"], 1.0, 1.0),
        (["a", "b"], ["a", "b"], 0.0, 1.0),
        ([1.0, 2.0], ["a", "b"], np.inf, 1.0),
    ],
)
def test_error_and_range(output, reference, error, span):
    def array(values):
        return np.array(values, object if values and isinstance(values[0], str) else None)

    check = compare_output("y", array(output), array(reference))
    assert (check.max_error, check.value_range) == (error, span)
    assert check.share == error / span


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_verdict_is_that_the_error_is_allowed(dtype):
    reference = np.linspace(-2, 2, 5).astype(dtype)
    allowed = compare_output("y", reference, reference).allowed
    assert allowed == pytest.approx(4 * tolerance(dtype).share)
    for factor, agrees in ((0.99, True), (1.01, False)):
        output = reference.astype(np.float64) + np.array([0, factor * allowed, 0, 0, 0])
        check = compare_output("y", output, reference)
        assert check.agrees is agrees
        assert check.agrees == (check.max_error <= check.allowed)


def test_less_precise_types_may_differ_by_more_and_by_some_last_places():
    bounds = [tolerance(dtype) for dtype in FLOATS]
    assert [b.share for b in bounds] == sorted(b.share for b in bounds)
    assert [b.absolute for b in bounds] == sorted(b.absolute for b in bounds)
    for dtype, bound in zip(FLOATS, bounds, strict=True):
        assert bound.share >= ml_dtypes.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool, object])
def test_whole_values_must_be_equal(dtype):
    assert tolerance(dtype) == tolerance(dtype, [np.float16]) == EXACT


def test_the_least_precise_type_of_the_model_decides():
    assert tolerance(np.float32, [np.float16, np.int64, np.dtype(object)]) == tolerance(np.float16)
    assert tolerance(np.float16, [np.float32]) == tolerance(np.float16)
    assert tolerance(np.float64, [np.float32]) == tolerance(np.float32)


def test_float16_outputs_that_differ_by_a_last_place_agree():
    reference = np.linspace(0, 1, 9).astype(np.float16)
    output = np.nextafter(reference, np.float16(2))
    assert compare_output("y", output, reference).agrees
    assert not compare_output("y", output.astype(np.float32), reference.astype(np.float32)).agrees


def test_an_output_of_noise_agrees_by_the_absolute_bound_that_the_table_shows():
    """A detector without a detection: sigmoids of 1e-7, off by a third of their range."""
    reference = np.float32([1e-7, 4e-7, 2e-7])
    check = compare_output("y", reference + np.float32(1e-7), reference)
    assert check.agrees
    assert check.share > 0.3
    assert check.max_error < check.allowed == tolerance(np.float32).absolute
