"""Probe spaces: the kind, size and range of probes, in a form that models share.

A probe space is independent of layout, batch and native value range, so one probe set serves models that differ in all
of these. `models/inputs/probed_input.py` connects a model to its space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from modeldiff_jax.errors import InvalidInputError

Kind: TypeAlias = Literal["image", "signal", "tokens", "generic"]

VOCABULARY = 256
"""Default number of tokens that a model is probed with: those of bytes, which every larger vocabulary contains."""
CHANNELS = (3, 1, 4)
"""Numbers of channels an image may have, the likeliest first."""


@dataclass(frozen=True)
class ProbeSpace:
    """The kind, size and range of probes, without batch, layout or native range.

    Attributes:
      kind: `image` (H, W, C) with C = 1 grey, 3 RGB or 4 RGBA; `signal` (T,); `tokens` (L,) integers; `generic` any.
      shape: shape of one probe.
      dtype: `int32` for tokens, else `float32`.
      low, high: smallest and largest value, inclusive: [0, 1] images, [-1, 1] signals, [0, vocabulary - 1] tokens.
    """

    kind: Kind
    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float

    def __post_init__(self) -> None:
        ranks = {"image": 3, "signal": 1, "tokens": 1}
        valid = (
            self.kind in get_args(Kind)
            and len(self.shape) == ranks.get(self.kind, len(self.shape))
            and all(isinstance(n, int) and n > 0 for n in self.shape)
            and (self.kind != "image" or self.shape[2] in CHANNELS)
            and self.dtype == ("int32" if self.kind == "tokens" else "float32")
            and math.isfinite(self.low)
            and math.isfinite(self.high)
            and self.low < self.high
        )
        if not valid:
            raise InvalidInputError(
                "A probe space is an image (H, W, 1, 3 or 4), a signal (T,), tokens (L,) or generic, with low < high",
                got=str(asdict(self)),
                where="ProbeSpace",
            )

    @property
    def size(self) -> int:
        """Number of values in one probe."""
        return math.prod(self.shape)

    def to_dict(self) -> dict[str, Any]:
        """Returns the space as JSON-able data."""
        return {**asdict(self), "shape": list(self.shape), "low": float(self.low), "high": float(self.high)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProbeSpace:
        """Returns the space that `to_dict` described.

        Raises:
          InvalidInputError: fields are missing, unknown or invalid.
        """
        try:
            low, high = float(data["low"]), float(data["high"])
            return cls(**{**data, "shape": tuple(data["shape"]), "low": low, "high": high})
        except (KeyError, TypeError, ValueError) as error:
            rule = "A probe space has kind, shape, dtype, low and high"
            raise InvalidInputError(rule, got=str(data)[:200]) from error

    def __str__(self) -> str:
        sizes = "x".join(map(str, self.shape)) or "scalar"
        return f"{self.kind} {sizes} in [{self.low:g}, {self.high:g}]"


def image_space(height: int, width: int, channels: int = 3) -> ProbeSpace:
    """Returns the space of images with values in [0, 1]."""
    return ProbeSpace("image", (height, width, channels), "float32", 0.0, 1.0)


def signal_space(samples: int) -> ProbeSpace:
    """Returns the space of one-dimensional signals with values in [-1, 1]."""
    return ProbeSpace("signal", (samples,), "float32", -1.0, 1.0)


def token_space(length: int, vocabulary: int = VOCABULARY) -> ProbeSpace:
    """Returns the space of integer sequences with values in [0, vocabulary - 1]."""
    return ProbeSpace("tokens", (length,), "int32", 0.0, float(vocabulary - 1))


def generic_space(shape: tuple[int, ...], low: float = -1.0, high: float = 1.0) -> ProbeSpace:
    """Returns the space of float arrays of no known kind."""
    return ProbeSpace("generic", shape, "float32", low, high)
