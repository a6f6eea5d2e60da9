"""Models and probes -> decision distance vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modeldiff_jax.errors import InvalidInputError, ProbeSetMismatchError
from modeldiff_jax.kernels import paired_distances
from modeldiff_jax.models.model import Model
from modeldiff_jax.probes.adapt import Adapter, adapt
from modeldiff_jax.probes.probe_set import ProbeSet


class DDV(np.ndarray[Any, np.dtype[np.float32]]):
    """Decision distance vectors: a float32 array that knows its probe set.

    Shape (N,) for one model, (M, N) for several. Entry i is the distance between a model's reactions to seed i and to
    its partner (Li et al., ISSTA 2021), never negative. Vectors of different probe sets measure different things;
    `same_probes` refuses them.

    Attributes:
      probe_set_id: of the probe set the distances were measured under; empty when lost through array arithmetic.
    """

    probe_set_id: str

    def __new__(cls, values: Any, probe_set_id: str) -> DDV:
        vectors = np.asarray(values, np.float32).view(cls)
        vectors.probe_set_id = probe_set_id
        return vectors

    def __array_finalize__(self, source: Any) -> None:
        self.probe_set_id = getattr(source, "probe_set_id", "")


def ddv(models: Model | Sequence[Model], probes: ProbeSet) -> DDV:
    """Decision distance vectors of one model, or of several under the same probes.

    Args:
      models: one model, or a sequence of M models. Models that share one `apply` share one compilation.
      probes: N probe pairs.
    Returns:
      (N,), or (M, N) for a sequence.
    Raises:
      NotAdaptableError: the probes cannot be turned into a model's inputs.
      NonFiniteError: a model's outputs hold NaN or infinity.
    """
    if isinstance(models, Model):
        return measure(adapt(models, probes.space), probes)
    if not models:
        raise InvalidInputError("At least one model is needed", got="an empty sequence", where="ddv")
    return DDV([measure(adapt(model, probes.space), probes) for model in models], probes.probe_set_id)


def measure(adapter: Adapter, probes: ProbeSet) -> DDV:
    """The decision distance vector of one adapted model."""
    if adapter.space != probes.space:
        raise ProbeSetMismatchError(
            "An adapter serves the probe space it was made for",
            got=f"probes of {probes.space}, an adapter of {adapter.space}",
            where=adapter.model.origin.path,
            fix="adapt the model to the probes' space",
        )
    seeds, partners = adapter.react(probes.seeds), adapter.react(probes.partners)  # as many at a time as when made
    return DDV(paired_distances(seeds, partners, metric=probes.metric), probes.probe_set_id)


def same_probes(a: DDV, b: DDV) -> None:
    """Raises `ProbeSetMismatchError` unless both vectors were measured under one probe set."""
    ids = [getattr(v, "probe_set_id", "") for v in (a, b)]
    if not ids[0] or ids[0] != ids[1]:
        raise ProbeSetMismatchError(
            "DDVs compare only under one probe set",
            got=f"probe sets {ids[0] or 'unknown'} and {ids[1] or 'unknown'}",
            fix="measure both models with the same ProbeSet",
        )
