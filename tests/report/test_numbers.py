"""Numbers are formatted for readers."""

import math

import pytest

from modeldiff_jax.report.numbers import decimal, p_value, with_prefix


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5000"),
        (-1.0, "-1.0000"),
        (0.0, "0.0000"),
        (3e-7, "3.0e-07"),
        (None, "-"),
        (math.nan, "-"),
        (math.inf, "-"),
    ],
)
def test_decimals(value, text):
    assert decimal(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123, "s", "12.3 ms"),
        (4.01e10, "B/s", "40.1 GB/s"),
        (1000, "", "1 k"),
        (0, "s", "0 s"),
        (5, "", "5"),
        (1e-15, "s", "0.001 ps"),
        (None, "s", "-"),
    ],
)
def test_prefixes(value, unit, text):
    assert with_prefix(value, unit) == text


def test_p_values():
    assert p_value(1 / 19) == "0.0526"
    assert p_value(None) == "-"
