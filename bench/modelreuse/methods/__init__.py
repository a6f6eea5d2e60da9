"""Methods that score how related two models are: the paper's, other published ones, and ours.

A method is `scores(study, owners, suspects, orientation) -> (owners, suspects)`, higher for more related; -inf for
models that it cannot compare, as those of two label spaces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from bench.modelreuse.methods import agreement, correlation, decision_distance, explanations, fused, weights
from bench.modelreuse.study import Orientation, Study

Method: TypeAlias = Callable[[Study, Sequence[str], Sequence[str], Orientation], np.ndarray]

METHODS: dict[str, Method] = {
    "ours": fused.ours,
    "modeldiff": decision_distance.modeldiff,
    "modeldiff_toward": decision_distance.modeldiff_toward,
    "modeldiff_script": decision_distance.modeldiff_script,
    "akh": agreement.akh,
    "ipguard": agreement.ipguard,
    "sac": correlation.sac,
    "zest": explanations.zest,
    "weights": weights.weights,
    "features": weights.features,
}
