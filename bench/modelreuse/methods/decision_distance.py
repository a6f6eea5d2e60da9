"""ModelDiff (Li et al., ISSTA 2021): cosine similarity of decision distance vectors, on logits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import pdist

from bench.modelreuse.study import Orientation, Study
from modeldiff_jax.kernels import paired_distances
from modeldiff_jax.probes.pgd import Direction


def cosine(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Returns the cosine similarity."""
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


def _modeldiff(
    direction: Direction, study: Study, owners: Sequence[str], suspects: Sequence[str], orientation: Orientation
) -> np.ndarray:
    """Scores as the authors' notebook does, from the DDV. `direction`: see `modeldiff_jax.probes.pgd.pgd`."""
    everyone = tuple(sorted({*owners, *suspects}))

    def vectors(prober: str) -> dict[str, np.ndarray]:
        seeds, partners = study.on_pairs(prober, everyone, direction=direction)
        return {name: np.asarray(paired_distances(seeds[name], partners[name])) for name in everyone}

    def score(prober: str, owner: str, suspect: str) -> float:
        made_on = study.prober(prober), study.entry(prober).dataset
        by_name = study.cached(lambda: vectors(prober), "ddv", direction, *made_on, everyone)
        return cosine(by_name[owner], by_name[suspect])

    return study.both_ways(owners, suspects, orientation, score)


modeldiff = partial(_modeldiff, "away")
"""The DDV with the sign of the released code, whose loss is negated twice."""
modeldiff_toward = partial(_modeldiff, "toward")
"""The DDV with the sign that the paper describes."""


def modeldiff_script(
    study: Study, owners: Sequence[str], suspects: Sequence[str], orientation: Orientation
) -> np.ndarray:
    """Scores as the released script does: cosine of Euclidean distance matrices among all seeds and partners."""
    everyone = tuple(sorted({*owners, *suspects}))

    def matrices(prober: str) -> dict[str, np.ndarray]:
        seeds, partners = study.on_pairs(prober, everyone, direction="away")
        return {name: pdist(np.concatenate([seeds[name], partners[name]])).astype(np.float32) for name in everyone}

    def score(prober: str, owner: str, suspect: str) -> float:
        made_on = study.prober(prober), study.entry(prober).dataset
        by_name = study.cached(lambda: matrices(prober), "ddm", *made_on, everyone)
        return cosine(by_name[owner], by_name[suspect])

    return study.both_ways(owners, suspects, orientation, score)
