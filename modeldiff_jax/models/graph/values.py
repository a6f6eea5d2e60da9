"""Values on the host and in a trace, and functions by which operators of every dialect treat both alike.

A value is a numpy array where it is concrete (shapes, axes, weights being folded) and a JAX array where it is traced.
`xp(x, y)` is numpy when all values are concrete and jax.numpy otherwise, so that shape arithmetic stays on the host in
int64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from types import ModuleType
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import rounding
from modeldiff_jax.models.graph.sizes import is_sizes
from modeldiff_jax.runtime import x64

Value: TypeAlias = Any
"""numpy array (concrete), JAX array (traced), a tuple of these (sequence) or `None` (omitted)."""

F = TypeVar("F", bound=Callable[..., Any])

HIGHEST = jax.lax.Precision.HIGHEST
"""Products of float32 are computed in float32 on every device, as runtimes of the models' formats do."""


def concrete(*values: Value) -> bool:
    """Returns whether every value (omitted ones aside) is known on the host."""
    return all(v is None or isinstance(v, (np.ndarray, np.generic, int, float)) for v in values)


def xp(*values: Value) -> ModuleType:
    """Returns numpy when every value is concrete, else jax.numpy."""
    return np if concrete(*values) else jnp


def known(value: Value) -> bool:
    """Returns whether the numbers of a value can be read: it is concrete, or a JAX array outside of any trace."""
    return value is None or not isinstance(value, jax.core.Tracer)


def module_for(shape: Sequence[Any], *values: Value) -> ModuleType:
    """Returns numpy when `shape` has no symbolic size and every value is concrete, else jax.numpy."""
    return xp(*values) if all(isinstance(dim, (int, np.integer)) for dim in shape) else jnp


def astype(x: Value, dtype: Any) -> Value:
    """Returns `x` in a type, 64-bit ones included."""
    return np.asarray(x).astype(dtype) if concrete(x) else x64.as_array(x, dtype)


def is_integer(x: Value) -> bool:
    """Returns whether `x` holds integers; arrays of symbolic sizes do."""
    return is_sizes(x) or bool(jnp.issubdtype(x.dtype, jnp.integer))


def is_narrow(x: Value) -> bool:
    """Returns whether `x` holds floats of fewer than 32 bits, such as float16 and bfloat16."""
    dtype = getattr(x, "dtype", None)
    return dtype is not None and dtype.itemsize < 4 and bool(jnp.issubdtype(dtype, jnp.floating))


def widened(x: Value) -> Value:
    """Returns `x` in float32 where it holds narrower floats, else as it is."""
    return astype(x, np.float32) if is_narrow(x) else x


def in_float32(function: F) -> F:
    """Evaluates an operator of narrower floats in float32, and rounds its results once.

    Sums, squares and products of float16 and bfloat16 overflow, or lose their last bits, where the result itself fits.
    onnxruntime likewise inserts casts to float32 around operators that it has no 16-bit kernels for.

    Args:
      function: an operator whose float results all have the type of its first float input.
    """

    @wraps(function)
    def evaluated(*inputs: Value, **attributes: Any) -> Any:
        if not any(map(is_narrow, inputs)):
            return function(*inputs, **attributes)
        dtypes = (getattr(x, "dtype", None) for x in inputs)
        dtype = next(dtype for dtype in dtypes if dtype is not None and jnp.issubdtype(dtype, jnp.floating))
        results = function(*map(widened, inputs), **attributes)
        if isinstance(results, tuple):
            return tuple(_narrowed(result, dtype) for result in results)
        return _narrowed(results, dtype)

    return evaluated  # type: ignore[return-value]  # `wraps` keeps the signature, which mypy cannot see


def _narrowed(result: Value, dtype: Any) -> Value:
    return astype(result, dtype) if getattr(result, "dtype", None) == np.float32 else result


def divide(x: Value, divisor: Value) -> Value:
    """Returns `x / divisor`, correctly rounded."""
    return np.divide(x, divisor) if concrete(x, divisor) else rounding.divide(x, divisor)


def saturate(x: Value, dtype: np.dtype[Any]) -> Value:
    """Returns whole numbers in floats as integers of a type, saturated at the ends of its range."""
    if concrete(x):
        low, high = map(float, rounding.finite_range(dtype))
        return np.clip(x, low, high).astype(dtype)
    return rounding.saturate(x, dtype)


def add_at(x: Value, index: np.ndarray, values: Value) -> Value:
    """Returns `x` with values added at indices into its last axis; values of equal indices add up."""
    location: Any = (Ellipsis, index)
    if not concrete(x, values):
        return jnp.asarray(x).at[location].add(values)
    out = np.array(x)
    np.add.at(out, location, values)
    return out


def sizes(values: Value) -> tuple[Any, ...]:
    """Returns the entries of a shape, axes or pads input: numbers as Python ints, symbolic sizes unchanged."""
    return tuple(int(v) if isinstance(v, (int, np.integer)) else v for v in np.ravel(values))


def axis_index(axis: int, rank: int) -> int:
    """Returns an axis counted from the front; raises `InvalidInputError` if the tensor has no such axis."""
    if not -rank <= axis < max(rank, 1):
        raise InvalidInputError("An axis must lie within the tensor", got=f"axis {axis} of a tensor of rank {rank}")
    return int(axis) % max(rank, 1)


def axis_indices(axes: Value, rank: int) -> tuple[int, ...]:
    """Returns distinct axes counted from the front; raises `InvalidInputError` if two are the same."""
    indices = tuple(axis_index(axis, rank) for axis in sizes(axes))
    if len(set(indices)) != len(indices):
        raise InvalidInputError("Each axis must be named once", got=f"axes {indices}")
    return indices


def along_axis(function: Callable[[int], Value], axis: Value, rank: int) -> Value:
    """Returns `function(axis)`, whose result has the same shape for every axis; a traced axis selects a branch."""
    if known(axis):
        return function(axis_index(int(axis), rank))
    return jax.lax.switch(axis % rank, [partial(function, candidate) for candidate in range(rank)])
