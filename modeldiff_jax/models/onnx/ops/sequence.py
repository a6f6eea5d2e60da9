"""Sequences, represented by tuples, and optionals, represented by the value or `None`.

An operator whose only output is a sequence returns a tuple of one (see `registry.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.graph.registry import Static
from modeldiff_jax.models.graph.values import Value, axis_index, sizes, xp
from modeldiff_jax.models.onnx.ops.tensor import split_at
from modeldiff_jax.models.onnx.registration import op

Sequence_ = tuple[Value, ...]


def _from_front(position: Value, length: int, default: int) -> int:
    """Returns a position counted from the front; raises `InvalidInputError` if it lies outside of the sequence."""
    index = default if position is None else int(np.ravel(position)[0])
    if not -length <= index < length:
        raise InvalidInputError("A position must lie within the sequence", got=f"{index} in a sequence of {length}")
    return index % length


@op("SequenceEmpty")
def sequence_empty(*, dtype: int | None = None) -> tuple[Sequence_]:
    """Returns an empty sequence."""
    return ((),)


@op("SequenceConstruct")
def sequence_construct(*xs: Value) -> tuple[Sequence_]:
    """Returns the inputs as a sequence."""
    return (xs,)


@op("SequenceAt")
def sequence_at(xs: Value, position: Static, /) -> Value:
    """Returns the entry at a position; negative ones count from the end."""
    return xs[_from_front(position, len(xs), -1)]


@op("SequenceInsert")
def sequence_insert(xs: Value, x: Value, position: Static = None, /) -> tuple[Sequence_]:
    """Returns the sequence with `x` inserted before a position, at its end by default."""
    index = len(xs) if position is None else int(np.ravel(position)[0])
    if not -len(xs) <= index <= len(xs):
        raise InvalidInputError("A position must lie within the sequence", got=f"{index} in a sequence of {len(xs)}")
    index = index + len(xs) if index < 0 else index
    return ((*xs[:index], x, *xs[index:]),)


@op("SequenceErase")
def sequence_erase(xs: Value, position: Static = None, /) -> tuple[Sequence_]:
    """Returns the sequence without the entry at a position, the last by default."""
    index = _from_front(position, len(xs), -1)
    return ((*xs[:index], *xs[index + 1 :]),)


@op("SequenceLength")
def sequence_length(xs: Value, /) -> Value:
    """Returns the number of entries, which is known while tracing."""
    return np.asarray(len(xs), np.int64)


@op("SequenceMap")
def sequence_map(xs: Value, /, *others: Value, body: Callable[..., tuple[Value, ...]]) -> tuple[Sequence_, ...]:
    """Applies `body` to each entry, the entries of other sequences at the same position, and other tensors whole."""
    rows = [body(x, *(other[i] if isinstance(other, tuple) else other for other in others)) for i, x in enumerate(xs)]
    return tuple(zip(*rows, strict=True)) if rows else ((),)


@op("SplitToSequence")
def split_to_sequence(x: Value, lengths: Static = None, /, *, axis: int = 0, keepdims: int = 1) -> tuple[Sequence_]:
    """Splits `x` along an axis into single entries, parts of one length (the last may be shorter), or given lengths."""
    axis = axis_index(axis, x.ndim)
    size = x.shape[axis]
    if lengths is None:
        parts = split_at(x, (1,) * size, axis)
        return (parts if keepdims else tuple(xp(x).squeeze(part, axis) for part in parts),)
    if np.ndim(lengths) == 0:
        (length,) = sizes(lengths)
        if length < 1:
            raise InvalidInputError("The parts of a split are not empty", got=f"length {length}")
        return (split_at(x, (length,) * (size // length) + ((size % length,) if size % length else ()), axis),)
    return (split_at(x, sizes(lengths), axis),)


@op("ConcatFromSequence")
def concat_from_sequence(xs: Value, /, *, axis: int, new_axis: int = 0) -> Value:
    """Concatenates all entries along an axis, or stacks them along a new one."""
    return xp(*xs).stack(xs, axis) if new_axis else xp(*xs).concatenate(xs, axis)


def _single(x: Value) -> Any:
    """Wraps a sequence that is an operator's only output, so that it is not taken for several outputs."""
    return (x,) if isinstance(x, tuple) else x


@op("Optional")
def optional(x: Value = None, /, *, type: str | None = None) -> Value:
    """Returns `x`, or None for an omitted input."""
    return _single(x)


@op("OptionalHasElement")
def optional_has_element(x: Value = None, /) -> Value:
    """Returns whether the optional has a value, which is known while tracing."""
    return np.asarray(x is not None)


@op("OptionalGetElement")
def optional_get_element(x: Value, /) -> Value:
    """Returns the value of an optional, which must have one."""
    if x is None:
        raise InvalidInputError("The value of an optional must be there", got="an absent one")
    return _single(x)
