"""White-box comparison: cosine similarity of weights, and of features on the seeds, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from bench.modelreuse.methods.decision_distance import cosine
from bench.modelreuse.study import Orientation, Study


def weights(study: Study, owners: Sequence[str], suspects: Sequence[str], orientation: Orientation) -> np.ndarray:
    """Returns the mean cosine of tensors of two or more axes and equal shape; -inf for different architectures."""
    del orientation  # no inputs are made

    def score(_: str, owner: str, suspect: str) -> float:
        if study.entry(owner).arch != study.entry(suspect).arch:
            return -np.inf
        a, b = (study.cached(lambda name=name: _tensors(study, name), "weights", name) for name in (owner, suspect))
        similarities = [cosine(x, y) for x, y in zip(a, b, strict=False) if x.shape == y.shape]
        return float(np.mean(similarities)) if similarities else -np.inf

    return study.both_ways(owners, suspects, "owner", score)


def _tensors(study: Study, name: str) -> list[np.ndarray]:
    """Returns tensors of two or more axes, in the parameters' order; a quantised model's are its stored integers."""
    leaves: list[Any] = jax.tree.leaves(study.reactor.models[name].params)
    return [np.asarray(leaf, np.float32).ravel() for leaf in leaves if np.ndim(leaf) >= 2]


def features(study: Study, owners: Sequence[str], suspects: Sequence[str], orientation: Orientation) -> np.ndarray:
    """Cosine similarity of the last layer's outputs on the seeds; -inf for different label spaces."""
    everyone = sorted({*owners, *suspects})

    def score(prober: str, owner: str, suspect: str) -> float:
        if study.entry(owner).classes != study.entry(suspect).classes:
            return -np.inf
        dataset = study.entry(prober).dataset
        outputs = study.outputs(study.seeds(dataset), everyone, "seeds", dataset)
        return cosine(outputs[owner].ravel(), outputs[suspect].ravel())

    return study.both_ways(owners, suspects, orientation, score)
