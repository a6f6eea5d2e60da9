"""Identity: two models are one and the same, which needs no references to be said."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from modeldiff_jax.detection.measurement import Measurement
from modeldiff_jax.evidence.reactions import Reactions

Identity: TypeAlias = Literal["file", "weights", "outputs"]
"""What is the same: the bytes of the file, the values of all weights, or the outputs on every probe."""

_TOLERANCE = 1e-5
"""Largest difference of equal outputs, as a share of the outputs' deviation: float32 programs of one network, compiled
differently, differ by less; a float16 copy differs by a hundred times as much."""
_DISTINCT = 64
"""Fewest distinct values among outputs that can identify a model. Label numbers and saturated probabilities take a few
values only, on which unrelated models may agree everywhere."""

REASONS: dict[Identity, str] = {
    "file": "The two files are the same, byte for byte.",
    "weights": "The two models have the same weights, value for value.",
    "outputs": "The two models give the same outputs on every probe, to float32 rounding.",
}


def identity(target: Measurement, suspect: Measurement) -> Identity | None:
    """Returns in what two models are identical, the strongest first; None where they differ."""
    if target.origin.content_sha256 == suspect.origin.content_sha256 != "":
        return "file"
    if target.weights_sha256 and target.weights_sha256 == suspect.weights_sha256:
        return "weights"
    return "outputs" if same_outputs(target.reactions, suspect.reactions) else None


def same_outputs(a: Reactions, b: Reactions) -> bool:
    """Returns whether two models' reactions are equal up to rounding, and rich enough for that to mean something."""
    x, y = _all(a), _all(b)
    if x.shape != y.shape or a.n_outputs != b.n_outputs:
        return False
    scale = float(np.std(x - x.mean(axis=0)))
    if not scale or np.max(np.abs(x - y)) > _TOLERANCE * scale:
        return False
    return len(np.unique(np.round(x / (10 * _TOLERANCE * scale)))) >= _DISTINCT


def _all(reactions: Reactions) -> Float[np.ndarray, "m c"]:
    return np.concatenate([reactions.seeds, reactions.partners]).astype(np.float64)
