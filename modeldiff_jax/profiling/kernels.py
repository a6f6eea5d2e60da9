"""Calls of the kernels that can be profiled by name, with arrays of given sizes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax import kernels
from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.profiling.programs import Budget

Shape: TypeAlias = tuple[int, ...]
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Sizes:
    """The sizes that a kernel's arrays follow from.

    Attributes:
      axes: names of the sizes; with a leading `...` there may be more before them.
      usual: sizes used where none are given.
      shapes: sizes -> shape of each array.
      options: further arguments used where none are given.
    """

    axes: str
    usual: Shape
    shapes: Callable[[Shape], tuple[Shape, ...]]
    options: Mapping[str, Any]

    def fits(self, sizes: Shape) -> bool:
        """Returns whether there are as many sizes as axes, each at least 1."""
        names = self.axes.split(" x ")
        enough = len(sizes) >= len(names) - 1 if names[0] == "..." else len(sizes) == len(names)
        return enough and all(size >= 1 for size in sizes)


def _one(sizes: Shape) -> tuple[Shape, ...]:
    return (sizes,)


def _two(sizes: Shape) -> tuple[Shape, ...]:
    return sizes, sizes


def _search(sizes: Shape) -> tuple[Shape, ...]:
    queries, rows, entries = sizes
    return (queries, entries), (rows, entries)


SIZES: Mapping[str, Sizes] = {
    "cosine_similarity": Sizes("M x D", (1000, 1000), _one, {}),
    "largest": Sizes("... x N", (1000, 20_000), _one, {"k": 10}),
    "paired_distances": Sizes("... x N x C", (100, 300, 1000), _two, {}),
    "pairwise_distances": Sizes("... x N x C", (600, 1000), _one, {}),
    "pearson_similarity": Sizes("M x D", (1000, 1000), _one, {}),
    "rdm_similarity": Sizes("... x N x C", (200, 1000), _two, {}),
    "self_join": Sizes("N x C", (5000, 300), _one, {"k": 10}),
    "spearman_similarity": Sizes("M x D", (1000, 1000), _one, {}),
    "top_k": Sizes("Q x N x C", (100, 20_000, 256), _search, {"k": 10}),
}
"""Public name -> sizes; some may be kernels that this version does not have."""


def names() -> tuple[str, ...]:
    """Returns the names of the kernels that can be profiled."""
    return tuple(name for name in SIZES if hasattr(kernels, name))


@dataclass(frozen=True)
class KernelCall:
    """A kernel with its options and arrays.

    Attributes:
      function: the kernel as a function of the arrays alone.
      arrays: its arguments, on the default device.
      sizes: sizes of the arrays.
      options: further arguments of the kernel.
    """

    function: Callable[..., Any]
    arrays: tuple[jax.Array, ...]
    sizes: Shape
    options: Mapping[str, Any]


def kernel_call(
    name: str, sizes: Shape | None, options: Mapping[str, Any], dtype: str, key: int, budget: Budget
) -> KernelCall:
    """Makes arrays for a kernel: positive random numbers, the second array near the first.

    Args:
      name: one of `names()`.
      sizes: one for each axis of its `Sizes.axes`; None for the usual ones.
      options: further arguments of the kernel.
      dtype: one of `DTYPES`.
      key: seed of the numbers.
      budget: limit on the arrays' bytes.
    Raises:
      InvalidInputError: sizes or an option do not fit the kernel.
      LimitExceededError: too large for the budget.
    """
    kernel_sizes = SIZES[name]
    function = getattr(kernels, name)
    chosen = kernel_sizes.usual if sizes is None else tuple(sizes)
    if not kernel_sizes.fits(chosen):
        raise InvalidInputError(
            f"The sizes of {name} are {kernel_sizes.axes}, each at least 1",
            got="x".join(map(str, chosen)) or "none",
            where="profile",
            fix=f"for example {'x'.join(map(str, kernel_sizes.usual))}",
        )
    accepted = set(inspect.signature(function).parameters)
    unknown = sorted(set(options) - accepted)
    if unknown:
        raise InvalidInputError(
            f"The options of {name} are its arguments", got=", ".join(unknown), where="profile", fix="leave it out"
        )
    if dtype not in DTYPES:
        raise InvalidInputError(f"`dtype` is one of {', '.join(DTYPES)}", got=repr(dtype), where="profile")
    shapes, kind, chosen_options = kernel_sizes.shapes(chosen), jnp.dtype(dtype), {**kernel_sizes.options, **options}
    budget.check_bytes(sum(map(math.prod, shapes)) * kind.itemsize, name)

    def call(*arrays: Any) -> Any:
        return function(*arrays, **chosen_options)

    generator = np.random.default_rng(key)
    first = generator.random(shapes[0], np.float32) + np.float32(0.01)
    arrays = [first]
    for shape in shapes[1:]:
        noise = generator.random(shape, np.float32)
        arrays.append(first + np.float32(0.1) * noise if shape == first.shape else noise)
    return KernelCall(call, tuple(jnp.asarray(array, kind) for array in arrays), chosen, chosen_options)
