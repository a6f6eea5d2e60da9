"""SAC (Guan et al., NeurIPS 2022): how similarly two models' outputs correlate over samples, in any label spaces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from bench.modelreuse.methods.agreement import misclassified
from bench.modelreuse.study import Orientation, Study


def sac(study: Study, owners: Sequence[str], suspects: Sequence[str], orientation: Orientation) -> np.ndarray:
    """Returns minus the mean absolute difference of correlations (cosines of probabilities) on misclassified inputs."""
    everyone = sorted({*owners, *suspects})

    def matrices(prober: str) -> dict[str, np.ndarray]:
        outputs = study.outputs(misclassified(study, prober), everyone, "akh", prober)
        return {name: _correlations(softmax(outputs[name], axis=1)) for name in everyone}

    def score(prober: str, owner: str, suspect: str) -> float:
        made_on = study.prober(prober)
        by_name = study.cached(lambda: matrices(made_on), "sac", made_on)
        return -float(np.mean(np.abs(by_name[owner] - by_name[suspect])))

    return study.both_ways(owners, suspects, orientation, score)


def _correlations(x: np.ndarray) -> np.ndarray:
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray((unit @ unit.T)[np.triu_indices(len(x), 1)], np.float32)
