"""Bytes of the values that are alive while a graph runs: computed, and still to be read.

The count is an estimate of the memory that a compiled program needs for them, made before it is compiled. XLA fuses
elementwise operators, so that their results are never stored, and lets an operator write over what it reads; neither is
foreseen here. What a kernel needs besides its results, such as a padded copy, is not counted either: operators check
that themselves (`limits.check_made`). For the networks of `bench/bench_real_models.py` that need 0.1 MB and more, XLA
takes 0.7 to 1.8 times the count. Parameters, inputs and constants are not counted: whoever calls a model holds these.
"""

from __future__ import annotations

import jax
import numpy as np

from modeldiff_jax.limits import check_live
from modeldiff_jax.models.graph.bounded import Padded
from modeldiff_jax.models.graph.ir import Node
from modeldiff_jax.models.graph.strings import Strings
from modeldiff_jax.models.graph.values import Value


def n_bytes(value: Value) -> int:
    """Returns the bytes of a value, of all parts of a sequence together; 0 where a size is symbolic."""
    if isinstance(value, (np.ndarray, jax.Array)):
        size = value.size
        return size * value.dtype.itemsize if isinstance(size, int) else 0
    if isinstance(value, tuple):
        return sum(map(n_bytes, value))
    if isinstance(value, Padded):
        return n_bytes(value.value)
    return n_bytes(value.indices) if isinstance(value, Strings) else 0


class LiveValues(dict[str, Value]):
    """Values by name while a graph runs; each leaves after its last reader.

    Raises:
      LimitExceededError: more than `live_bytes` are alive; names the node.
    """

    def computed(self, node: Node, results: tuple[Value, ...]) -> None:
        """Adds a node's results."""
        fresh = {name: result for name, result in zip(node.outputs, results, strict=False) if name}
        self.update(fresh)
        check_live(sum(map(n_bytes, fresh.values())), node)

    def drop(self, names: tuple[str, ...]) -> None:
        """Drops values that nothing reads any more."""
        release(*(self.pop(name, None) for name in names))


def release(*values: Value) -> None:
    """Ends the count of values, such as those that one trip of a loop hands to the next and nobody else."""
    check_live(-sum(map(n_bytes, values)))
