"""Type aliases and small records that all modules share."""

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
"""A fixed size, or the name of a dynamic one. Equal names mean equal sizes; each `?` is another size. Names in a file
are its exporter's: sizes are guessed by them, but calls need not agree with them."""
ANY: Dim = "?"
"""A dynamic size without a name."""
Shape: TypeAlias = tuple[Dim, ...]
STRING: np.dtype[Any] = np.dtype(object, metadata={"name": "string"})
"""The dtype of a tensor of strings: numpy's objects, each a `str`."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of one input or output.

    Attributes:
      name: name in the model.
      shape: sizes of all axes, the batch axis included.
      dtype: `STRING` for strings; any other object dtype means a sequence or an optional.
    """

    name: str
    shape: Shape
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        kind = "string" if self.holds_strings else self.dtype.name
        return f"{self.name}: {kind}[{', '.join(map(str, self.shape))}]"

    @property
    def holds_strings(self) -> bool:
        """Returns whether this is a tensor of strings."""
        return self.dtype.metadata == STRING.metadata
