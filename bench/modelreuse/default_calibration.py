"""Measures similarities of unrelated image classifiers as `modeldiff_jax.compare` does without references.

Writes `modeldiff_jax/detection/default_calibration.json`, the default calibration, or tests it on another zoo.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import modeldiff_jax as md
from bench.modelreuse.folder import Entry, Zoo
from bench.modelreuse.reactions import Reactor
from modeldiff_jax.detection.conformal import conformal_p_value
from modeldiff_jax.detection.default_calibration import FILE
from modeldiff_jax.evidence.decision_distance import measure_ddv
from modeldiff_jax.models.inputs.probed_input import InputHint
from modeldiff_jax.probes.adapt import adapt

NAME = "image-classifiers-1"
MOST = 999
"""Most similarities of each kind that are stored."""


def similarities(zoo: Zoo, n_owners: int, key: int = 0) -> list[tuple[Entry, Entry, float]]:
    """Returns owner, suspect and their similarity, of all models with some owners, drawn at random.

    Probes are made with the defaults of `make_probes`, but for the value range, which is in a zoo's manifest.
    """
    rng = np.random.default_rng(key)
    reactor = Reactor({name: zoo.path(name) for name in zoo.entries})
    entries = list(zoo.entries.values())
    owners = [entry for entry in entries if entry.kind != "quantize"]
    owners = [owners[i] for i in rng.choice(len(owners), min(n_owners, len(owners)), replace=False)]
    low, high = (float(zoo.normalised(np.full((1, 3, 1, 1), value, np.uint8)).mean()) for value in (0, 255))
    hint = InputHint(layout=zoo.layout, value_range=(low, high))
    pairs = []
    for owner in owners:
        probes = md.make_probes(reactor.models[owner.name], hint=hint, key=key)
        vectors = {
            name: measure_ddv(adapt(model, probes.space, hint), probes) for name, model in reactor.models.items()
        }
        ddv = vectors.pop(owner.name)
        pairs += [(owner, zoo.entries[name], float(md.ddv_similarity(ddv, v))) for name, v in vectors.items()]
    return pairs


def calibrate(folders: Sequence[Path], n_owners: int, write: bool) -> dict[str, Any]:
    """Tests the default calibration on zoos, after it was written from them if `write`."""
    pairs = [pair for folder in folders for pair in similarities(Zoo(folder), n_owners)]
    if write:
        content = pack(pairs, {"zoos": [folder.name for folder in folders], "owners": n_owners})
        FILE.write_text(json.dumps(content) + "\n", "utf-8")
    return calibration_rates(pairs, json.loads(FILE.read_text("utf-8")))


def pack(pairs: Sequence[tuple[Entry, Entry, float]], source: dict[str, Any], key: int = 0) -> dict[str, Any]:
    """Returns the file's content: up to `MOST` similarities of unrelated pairs of each kind, drawn at random."""
    rng = np.random.default_rng(key)
    stored = {}
    for kind, same in (("same_label_space", True), ("other_label_space", False)):
        null = [s for o, e, s in pairs if o.root != e.root and (o.dataset == e.dataset) == same]
        stored[kind] = sorted(round(null[i], 5) for i in rng.choice(len(null), min(MOST, len(null)), replace=False))
    probes = {"method": "pgd", "seeds": "built-in image-v1"}
    return {"name": NAME, **source, "probes": probes, "similarities": stored}


def calibration_rates(pairs: Sequence[tuple[Entry, Entry, float]], pack: dict[str, Any]) -> dict[str, Any]:
    """Returns the shares that the default calibration calls reused: of unrelated pairs, and by kind of children."""

    def p_value(owner: Entry, other: Entry, similarity: float) -> float:
        kind = "same_label_space" if owner.dataset == other.dataset else "other_label_space"
        return conformal_p_value(similarity, pack["similarities"][kind])

    groups: dict[str, list[float]] = {}
    for owner, other, similarity in pairs:
        if owner.root != other.root:
            hard = owner.dataset == other.dataset
            group = "unrelated, same labels" if hard else "unrelated, other labels"
        elif other.parent == owner.name:
            group = other.kind
        else:
            continue
        groups.setdefault(group, []).append(p_value(owner, other, similarity))
    return {
        group: {"pairs": len(p), **{str(alpha): float(np.mean(np.array(p) <= alpha)) for alpha in (0.01, 0.05)}}
        for group, p in sorted(groups.items())
    }
