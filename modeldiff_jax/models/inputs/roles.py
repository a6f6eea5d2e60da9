"""Assigns a role to each of a model's inputs by its name, type and rank.

Files do not state the purpose of an input, but exporters name inputs alike. The role decides which sizes are tried for
dynamic axes, which input is probed, and which values the others get.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.model import Model
from modeldiff_jax.types import TensorSpec


class Role(Enum):
    """The purpose of an input; those with a usual value name it."""

    DATA = "data"
    """Images, sound, tokens, features and inputs of no other role."""
    SETTING = "setting"
    """An integer or boolean number that chooses a branch: a sampling rate, a training flag."""
    STATE = "state"
    """Recurrent state: zeros initially."""
    CACHE = "cache"
    """Keys and values of earlier tokens: none initially."""
    MASK = "mask"
    """Marks of the entries that count: ones, so that all do."""
    POSITION = "position"
    """Positions of tokens: 0, 1, 2 and so on along the last axis."""
    SEGMENT = "segment"
    """Number of the sentence that each token belongs to: zeros."""
    LENGTH = "length"
    """Number of real entries of another input."""


SETTINGS: Mapping[str, int] = {
    "sr": 16000,
    "sample_rate": 16000,
    "sampling_rate": 16000,
    "training": 0,
    "is_training": 0,
    "training_mode": 0,
}
"""Numbers that exporters leave as inputs, by lower-case name, with the value nearly every caller passes."""

_PATTERNS: tuple[tuple[Role, re.Pattern[str]], ...] = tuple(
    (role, re.compile(pattern, re.IGNORECASE))
    for role, pattern in (
        (Role.CACHE, r"past|key_values|kv_?cache"),
        (Role.STATE, r"^(h|c|hx|cx|h_?0|c_?0|.*(state|hidden|cell|cache)s?([_./:\-\d].*)?)$"),
        (Role.MASK, r"mask"),
        (Role.POSITION, r"position"),
        (Role.SEGMENT, r"token_?type|segment"),
        (Role.LENGTH, r"len"),
    )
)
"""In order: the first pattern that matches a name gives the role."""
_INTEGER_ROLES = frozenset({Role.POSITION, Role.SEGMENT, Role.LENGTH})


def role(spec: TensorSpec) -> Role:
    """Returns the role of an input."""
    if spec.dtype.kind in "iub" and spec.shape in ((), (1,)) and spec.name.lower() in SETTINGS:
        return Role.SETTING
    for candidate, pattern in _PATTERNS:
        if pattern.search(spec.name):
            if candidate in (Role.CACHE, Role.STATE) and not spec.shape:
                continue
            if candidate in _INTEGER_ROLES and spec.dtype.kind not in "iu":
                continue
            return candidate
    return Role.DATA


def is_state(spec: TensorSpec) -> bool:
    """Returns whether an input is recurrent state or a cache, which usually start as zeros."""
    return role(spec) in (Role.STATE, Role.CACHE)


def usual_value(spec: TensorSpec, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the value of an input that carries no data: ones for a mask, 0, 1, 2... for positions, else zeros.

    Args:
      spec: spec of the input.
      shape: its concrete shape.
    """
    match role(spec):
        case Role.MASK:
            return np.ones(shape, spec.dtype)
        case Role.POSITION if shape:
            return np.broadcast_to(np.arange(shape[-1], dtype=spec.dtype), shape)
        case _:
            return np.zeros(shape, spec.dtype)


def main_input(model: Model) -> TensorSpec:
    """Returns the input that carries the data: the first that is neither a number nor recurrent state.

    Raises:
      InvalidInputError: the model has no inputs.
    """
    if not model.inputs:
        raise InvalidInputError("A model must have an input", got="none", where=model.origin.path)
    data = [spec for spec in model.inputs if spec.shape and not is_state(spec)]
    return (data or list(model.inputs))[0]
