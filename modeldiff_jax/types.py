"""Aliases and small records that every room shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np

Array: TypeAlias = jax.Array | np.ndarray
Params: TypeAlias = Mapping[str, Any] | Any
"""Any pytree of arrays."""
Apply: TypeAlias = Callable[..., Any]
"""`apply(params, *inputs) -> outputs`: one array, or a tuple of arrays in declared order."""
Dim: TypeAlias = int | str
"""A fixed size, or the name of a dynamic one. Equal names mean equal sizes, but each `?` stands alone."""
ANY: Dim = "?"
"""A dynamic size without a name."""
Shape: TypeAlias = tuple[Dim, ...]


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of one input or output. `shape` includes the batch axis."""

    name: str
    shape: Shape
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype.name}[{', '.join(map(str, self.shape))}]"
