"""The operations of networks, for those who run or write them."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

EPSILON = 1e-5
"""Added to a variance by batch normalisation."""
Variables: TypeAlias = dict[str, Any]
"""Flax's `params` and `batch_stats`."""


class Operations(Protocol):
    """One way to run or to write a network: Flax makes modules, the exporter writes ONNX nodes.

    `act` is "relu", "relu6" or "" for none. `pad` is added before and after both axes; without it a stride of 1 keeps
    the size.
    """

    def conv(
        self,
        name: str,
        x: Any,
        features: int,
        taps: int,
        stride: int,
        groups: int,
        act: str,
        pad: tuple[int, int] | None = None,
    ) -> Any: ...

    def zoom(self, x: Any, times: int) -> Any: ...

    def add(self, a: Any, b: Any, act: str) -> Any: ...

    def mean(self, x: Any) -> Any: ...

    def dense(self, name: str, x: Any, features: int) -> Any: ...

    def channels(self, x: Any) -> int: ...
