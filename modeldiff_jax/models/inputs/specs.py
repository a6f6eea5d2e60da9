"""Converts a caller's description of inputs or outputs to `TensorSpec`s, and these to abstract arrays for tracing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.types import ANY, Dim, TensorSpec

SpecLike: TypeAlias = TensorSpec | jax.ShapeDtypeStruct | Sequence[Any]
"""A `TensorSpec`, a `jax.ShapeDtypeStruct`, a shape (None or a name: dynamic axis; float32), or several of these."""
BATCH: Dim = "batch"
"""The name of a dynamic axis 0 without a name: every input then has the same batch size."""

# Two sizes for each kind of axis: an output axis that differs between them depends on a dynamic one
_BATCH_SIZES, _OTHER_SIZES, _STEP = (2, 3), (224, 256), 32


def to_specs(given: SpecLike, kind: str) -> tuple[TensorSpec, ...]:
    """Returns a caller's description of inputs or outputs as specs.

    Args:
      given: one spec or a sequence of specs.
      kind: `input` or `output`, for names (`input`, or `input_0`, `input_1`, ...) and messages.
    Raises:
      InvalidInputError: not a spec, no spec at all, a negative size, or a repeated name.
    """
    several = isinstance(given, Sequence) and not _is_shape(given)
    parts = list(given) if isinstance(given, Sequence) and several else [given]
    if not parts or (several and any(isinstance(part, str) for part in parts)):
        raise _bad(kind, given)
    specs = tuple(
        _one(part, f"{kind}_{i}" if several and len(parts) > 1 else kind, kind) for i, part in enumerate(parts)
    )
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise InvalidInputError(f"The names of {kind}s differ", got=", ".join(names), where=f"{kind}_spec")
    return specs


def _is_shape(given: Sequence[Any]) -> bool:
    return all(dim is None or isinstance(dim, str | int | np.integer) for dim in given) and len(given) > 0


def _one(given: Any, name: str, kind: str) -> TensorSpec:
    if isinstance(given, TensorSpec):
        return given
    if isinstance(given, jax.ShapeDtypeStruct):
        return TensorSpec(name, tuple(int(dim) for dim in given.shape), np.dtype(given.dtype))
    if not isinstance(given, Sequence) or isinstance(given, str) or not _is_shape(given):
        raise _bad(kind, given)
    return TensorSpec(name, tuple(_dim(dim, axis, kind, given) for axis, dim in enumerate(given)), np.dtype(np.float32))


def _dim(dim: int | str | None, axis: int, kind: str, given: Any) -> Dim:
    if dim is None:
        return BATCH if axis == 0 else ANY
    if isinstance(dim, str):
        return dim
    if isinstance(dim, bool) or int(dim) < 0:
        raise _bad(kind, given)
    return int(dim)


def _bad(kind: str, given: Any) -> InvalidInputError:
    return InvalidInputError(
        f"`{kind}_spec` is a shape, a jax.ShapeDtypeStruct, a TensorSpec, or a sequence of these",
        got=repr(given)[:200],
        where=f"{kind}_spec",
        fix="for images of 28 x 28 in batches of any size: (None, 28, 28, 1)",
    )


def traced_outputs(
    function: Callable[..., Any], arguments: tuple[Any, ...], inputs: tuple[TensorSpec, ...]
) -> tuple[TensorSpec, ...]:
    """Returns the output specs of `function(*arguments, *inputs)`, traced at two sizes of each dynamic axis.

    An output axis with the sizes of a named input axis gets its name; another one whose size changes is dynamic without
    a name.

    Args:
      function: traceable; its result is any pytree of arrays.
      arguments: arguments before the inputs.
      inputs: specs of the inputs.
    Raises:
      InvalidInputError: the result is empty, or its structure or rank depends on the sizes.
    """
    small, large = (jax.eval_shape(function, *arguments, *placeholders(inputs, which)) for which in (0, 1))
    sizes = [_sizes(spec, axis, _names(inputs)) for spec in inputs for axis in range(len(spec.shape))]
    names = {pair: dim for pair, dim in zip(sizes, (d for s in inputs for d in s.shape), strict=True) if _named(dim)}
    leaves, others = jax.tree_util.tree_leaves_with_path(small), jax.tree_util.tree_leaves_with_path(large)
    if not leaves or [(path, leaf.ndim) for path, leaf in leaves] != [(path, leaf.ndim) for path, leaf in others]:
        raise InvalidInputError("A model gives arrays, the same ones for every batch size", got=str(small)[:200])
    specs = []
    for (path, one), (_, two) in zip(leaves, others, strict=True):
        shape = tuple(names.get((a, b), a if a == b else ANY) for a, b in zip(one.shape, two.shape, strict=True))
        specs.append(TensorSpec(_path_name(path) or "output", shape, np.dtype(one.dtype)))
    return tuple(specs)


def placeholders(inputs: tuple[TensorSpec, ...], which: int = 0) -> Iterator[jax.ShapeDtypeStruct]:
    """Yields abstract arrays of the inputs' types, dynamic axes at the first or second of their two trial sizes."""
    names = _names(inputs)
    for spec in inputs:
        shape = tuple(_sizes(spec, axis, names)[which] for axis in range(len(spec.shape)))
        yield jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(spec.dtype))


def _names(inputs: tuple[TensorSpec, ...]) -> dict[Dim, tuple[int, int]]:
    """Returns two sizes for each named axis; all names have different ones, by which output axes are recognised."""
    sizes: dict[Dim, tuple[int, int]] = {}
    for spec in inputs:
        for axis, dim in enumerate(spec.shape):
            if _named(dim) and dim not in sizes:
                base, step = (_BATCH_SIZES, 2) if axis == 0 else (_OTHER_SIZES, _STEP)
                shift = step * (1 + len(sizes)) if axis else step * len(sizes)
                sizes[dim] = (base[0] + shift, base[1] + shift)
    return sizes


def _sizes(spec: TensorSpec, axis: int, names: dict[Dim, tuple[int, int]]) -> tuple[int, int]:
    dim = spec.shape[axis]
    if isinstance(dim, int):
        return dim, dim
    return names.get(dim, _BATCH_SIZES if axis == 0 else _OTHER_SIZES)


def _named(dim: Dim) -> bool:
    return isinstance(dim, str) and dim != ANY


def _path_name(path: tuple[Any, ...]) -> str:
    return "_".join(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path)
