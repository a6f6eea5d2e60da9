"""How similar unrelated image classifiers are: context for comparisons without references, never a verdict."""

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
"""Probe pairs below which similarities scatter more than those of the pack, which were taken from 100."""


@dataclass(frozen=True, slots=True)
class UnrelatedPairs:
    """The similarities of unrelated pairs of models, to compare a similarity with.

    Attributes:
      name: and version of the pack; docs/default-calibration.md is its data card.
      n: how many pairs.
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
    similarity: float, target: ModelSummary, suspect: ModelSummary, probes: ProbeSet, same_labels: bool
) -> UnrelatedPairs | None:
    """Returns how similar the pack's unrelated pairs like this one are; None where it has none like it.

    Args:
      similarity: of the pair.
      target, suspect: both must look like image classifiers: one output, a row of numbers for each image.
      probes: must be made on the target as the pack's were: from built-in seeds, by gradients, 25 pairs or more.
      same_labels: whether both have equally many outputs.
    """
    pack = _pack()
    fits = (
        all(_is_classifier(model) for model in (target, suspect))
        and probes.space.kind == "image"
        and probes.metric == "cosine"
        and len(probes) >= _FEWEST_PAIRS
        and all(probes.origin.get(name) == value for name, value in pack["probes"].items())
        and probes.origin.get("model_sha256") == target.origin.content_sha256
    )
    if not fits:
        return None
    known = np.asarray(pack["similarities"]["same_labels" if same_labels else "other_labels"])
    low, median, high = (float(value) for value in np.percentile(known, (5, 50, 95)))
    return UnrelatedPairs(pack["name"], len(known), low, median, high, float(np.mean(known >= similarity)))


def _is_classifier(model: ModelSummary) -> bool:
    outputs = model.outputs
    return len(outputs) == 1 and len(outputs[0].shape) == 2 and outputs[0].shape[1] != 1


@cache
def _pack() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return content
