"""Zest (Jia et al., ICLR 2022): cosine similarity of local linear explanations (LIME) of the probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from bench.modelreuse.methods.decision_distance import cosine
from bench.modelreuse.study import Orientation, Study

_GRID, _MASKS, _IMAGES = 4, 64, 25
"""Tiles per side, perturbed copies of an image, and images: 1,600 queries to a model where Zest makes 128,000."""


def zest(study: Study, owners: Sequence[str], suspects: Sequence[str], orientation: Orientation) -> np.ndarray:
    """Returns the cosine similarity of the slopes of probabilities over which tiles of an image are shown."""
    everyone = sorted({*owners, *suspects})

    def signatures(dataset: str) -> dict[str, np.ndarray]:
        x, masks = _perturbed(study, dataset)
        outputs = study.outputs(x, everyone, "zest", dataset)
        design = np.concatenate([masks, np.ones((len(masks), 1))], axis=1)
        solve = np.linalg.pinv(design)[:-1]
        return {
            name: (solve @ softmax(y, axis=1).reshape(-1, _MASKS, y.shape[1])).astype(np.float32)
            for name, y in outputs.items()
        }

    def score(prober: str, owner: str, suspect: str) -> float:
        dataset = study.entry(prober).dataset
        by_name = study.cached(lambda: signatures(dataset), "zest slopes", dataset)
        a, b = by_name[owner], by_name[suspect]
        return cosine(a.ravel(), b.ravel()) if a.shape == b.shape else -np.inf

    return study.both_ways(owners, suspects, orientation, score)


def _perturbed(study: Study, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(study.key)
    masks = rng.integers(0, 2, (_MASKS, _GRID * _GRID)).astype(np.float32)
    seeds = study.seeds(dataset)[: min(_IMAGES, study.n_pairs)]
    first = study.zoo.layout == "NCHW"
    side = seeds.shape[2]
    tiles = np.kron(masks.reshape(-1, _GRID, _GRID), np.ones((1, -(-side // _GRID), -(-side // _GRID))))
    shown = tiles[:, :side, :side][:, None] if first else tiles[:, :side, :side, None]
    grey = seeds.mean(axis=(2, 3) if first else (1, 2), keepdims=True)
    x = seeds[:, None] * shown + grey[:, None] * (1 - shown)
    return x.reshape(-1, *seeds.shape[1:]).astype(np.float32), masks
