"""The paper's evidence: cosine similarity of two decision distance vectors."""

from __future__ import annotations

import numpy as np

from modeldiff_jax.decision_distance import DDV, same_probes
from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import cosine_similarity


def ddv_similarity(a: DDV, b: DDV) -> float | np.ndarray:
    """Cosine similarity of decision distance vectors (Li et al., ISSTA 2021).

    Args:
      a: (N,) or (M, N). b: (N,) or (K, N), of the same probe set.
    Returns:
      A number in [-1, 1] for two vectors, else (M, K), a missing axis dropped. It is 1 between two models that react to
      no probe, and 0 between one that reacts to none and one that does.
    Raises:
      ProbeSetMismatchError: the vectors were measured under different probe sets.
    """
    same_probes(a, b)
    if a.shape[-1] != b.shape[-1] or not 1 <= a.ndim <= 2 or not 1 <= b.ndim <= 2:
        raise InvalidInputError("DDVs are (N,) or (M, N) over the same N", got=f"shapes {a.shape} and {b.shape}")
    table = np.asarray(cosine_similarity(np.atleast_2d(np.asarray(a)), np.atleast_2d(np.asarray(b))))
    if a.ndim == b.ndim == 1:
        return float(table[0, 0])
    return table[0] if a.ndim == 1 else table[:, 0] if b.ndim == 1 else table
