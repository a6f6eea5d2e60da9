"""The role of an input, by its name, type and rank."""

import numpy as np
import pytest

from modeldiff_jax.models.inputs.roles import Role, role, usual_value
from modeldiff_jax.types import TensorSpec

FLOAT, INT, BOOL = "float32", "int64", "bool"


def spec(name, dtype=FLOAT, shape=(1, 8)):
    return TensorSpec(name, shape, np.dtype(dtype))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (spec("pixel_values"), Role.DATA),
        (spec("input_ids", INT), Role.DATA),
        (spec("attention_mask", INT), Role.MASK),
        (spec("attentionMask"), Role.MASK),
        (spec("token_type_ids", INT), Role.SEGMENT),
        (spec("segment_ids", INT), Role.SEGMENT),
        (spec("position_ids", INT), Role.POSITION),
        (spec("x_lengths", INT, (1,)), Role.LENGTH),
        (spec("seq_len", INT, ()), Role.LENGTH),
        (spec("state", shape=(2, 1, 64)), Role.STATE),
        (spec("h0", shape=(2, 1, 64)), Role.STATE),
        (spec("past_key_values.0.key", shape=(1, 4, 0, 16)), Role.CACHE),
        (spec("sr", INT, ()), Role.SETTING),
        (spec("training", BOOL, ()), Role.SETTING),
        (spec("sr", FLOAT, (1, 16000)), Role.DATA),
        (spec("positions_embedded"), Role.DATA),  # floats are no places
        (spec("silence"), Role.DATA),
        (spec("valence"), Role.DATA),
    ],
    ids=lambda value: value.name,
)
def test_roles(given, expected):
    assert role(given) is expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (spec("mask", INT), np.ones((1, 8))),
        (spec("position_ids", INT), np.arange(8)[None]),
        (spec("token_type_ids", INT), np.zeros((1, 8))),
        (spec("state", shape=(1, 8)), np.zeros((1, 8))),
        (spec("other"), np.zeros((1, 8))),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_usual_values(given, expected):
    result = usual_value(given, (1, 8))
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == given.dtype
