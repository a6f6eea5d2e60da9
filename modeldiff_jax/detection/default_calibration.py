"""Stored similarities of unrelated image classifiers: context for comparisons without references, never a verdict."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from modeldiff_jax.models.model import ModelSummary
from modeldiff_jax.probes.probe_set import ProbeSet

FILE = Path(__file__).with_name("default_calibration.json")
_FEWEST_PAIRS = 25
"""Fewest probe pairs. With fewer, similarities scatter more than the stored ones, which were measured on 100."""


@dataclass(frozen=True, slots=True)
class UnrelatedPairs:
    """A summary of the stored similarities of unrelated models, beside one similarity.

    Attributes:
      name: name and version of the default calibration; docs/default-calibration.md is its data card.
      n: number of pairs of models.
      low, median, high: the 5th, 50th and 95th percentile of their similarities, each in [-1, 1].
      share_as_high: the share of pairs at least as similar, in [0, 1].
    """

    name: str
    n: int
    low: float
    median: float
    high: float
    share_as_high: float

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON-able data."""
        return {
            "name": self.name,
            "n": self.n,
            "low": self.low,
            "median": self.median,
            "high": self.high,
            "share_as_high": self.share_as_high,
        }


def unrelated_pairs(
    similarity: float, target: ModelSummary, suspect: ModelSummary, probes: ProbeSet, same_label_space: bool
) -> UnrelatedPairs | None:
    """Returns the stored similarities of unrelated models like these two; None where there are none for their kind.

    Args:
      similarity: similarity of target and suspect.
      target, suspect: both must have an image classifier's interface: one output, a row of numbers for each image.
      probes: must be made on the target as for the calibration: from built-in seeds, by gradients, 25 pairs or more.
      same_label_space: whether both have equally many outputs.
    """
    calibration = _calibration()
    fits = (
        all(_is_classifier(model) for model in (target, suspect))
        and probes.space.kind == "image"
        and probes.metric == "cosine"
        and len(probes) >= _FEWEST_PAIRS
        and all(probes.origin.get(name) == value for name, value in calibration["probes"].items())
        and probes.origin.get("model_sha256") == target.origin.content_sha256
    )
    if not fits:
        return None
    stored = np.asarray(calibration["similarities"]["same_label_space" if same_label_space else "other_label_space"])
    low, median, high = (float(value) for value in np.percentile(stored, (5, 50, 95)))
    return UnrelatedPairs(calibration["name"], len(stored), low, median, high, float(np.mean(stored >= similarity)))


def _is_classifier(model: ModelSummary) -> bool:
    outputs = model.outputs
    return len(outputs) == 1 and len(outputs[0].shape) == 2 and outputs[0].shape[1] != 1


@cache
def _calibration() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return content
