"""What unrelated image classifiers score, for comparisons without references."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from modeldiff_jax.models.model import Model
from modeldiff_jax.probes.probe_set import ProbeSet

FILE = Path(__file__).with_name("default_calibration.json")
_FEWEST_PAIRS = 25
"""Probe pairs below which similarities scatter more than those of the pack, which were taken from 100."""


@dataclass(frozen=True, slots=True)
class DefaultNull:
    """Similarities of unrelated pairs of models, which stand in for those of references.

    Attributes:
      name: and version of the pack; docs/default-calibration.md is its data card.
      similarities: of decision distance vectors, of pairs that share a label space, or of pairs that do not.
    """

    name: str
    similarities: tuple[float, ...]


def default_null(target: Model, suspect: Model, probes: ProbeSet, same_labels: bool) -> DefaultNull | None:
    """The pack's similarities for pairs like this one; None where they say nothing of it.

    Args:
      target, suspect: both must look like image classifiers: one output, a row of numbers for each image.
      probes: must be made on the target as the pack's were: from built-in seeds, by gradients, 25 pairs or more.
      same_labels: whether both have equally many outputs.
    """
    pack = _pack()
    fits = (
        all(_classifier(model) for model in (target, suspect))
        and probes.space.kind == "image"
        and probes.metric == "cosine"
        and len(probes) >= _FEWEST_PAIRS
        and all(probes.origin.get(name) == value for name, value in pack["probes"].items())
        and probes.origin.get("model_sha256") == target.origin.content_sha256
    )
    if not fits:
        return None
    kind = "same_labels" if same_labels else "other_labels"
    return DefaultNull(pack["name"], tuple(pack["similarities"][kind]))


def _classifier(model: Model) -> bool:
    outputs = model.outputs
    return len(outputs) == 1 and len(outputs[0].shape) == 2 and outputs[0].shape[1] != 1


@cache
def _pack() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return content
