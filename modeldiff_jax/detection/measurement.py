"""A model's behaviour under a probe set, as a record that can be stored, and ranked like any other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modeldiff_jax.evidence.access import ALL, infer_access, restrict
from modeldiff_jax.evidence.decision_distance import DDV, react_to_pairs
from modeldiff_jax.evidence.reactions import Reactions
from modeldiff_jax.kernels import paired_distances
from modeldiff_jax.models.model import ModelSummary, Origin
from modeldiff_jax.probes.adapt import Adapter
from modeldiff_jax.probes.probe_set import ProbeSet


@dataclass(frozen=True)
class Measurement:
    """A model's decision distances and reactions under a probe set. It holds no model, so it can be stored.

    Attributes:
      model: where the model came from, and its interface.
      ddv: (N,) decision distance vector.
      reactions: to the N pairs.
      weights_sha256: of the values of all weights, whatever their names and order; empty without enough of them.
      inferred_access: the most restrictive access level consistent with the outputs (`modeldiff_jax.evidence.access`).
      adaptations: every change that turned probes into the model's input, in words.
      queries: inputs the model was run on so far.
    """

    model: ModelSummary
    ddv: DDV
    reactions: Reactions
    weights_sha256: str
    inferred_access: str
    adaptations: tuple[str, ...] = ()
    queries: int = 0

    @property
    def origin(self) -> Origin:
        """Where the model came from."""
        return self.model.origin


def measure(adapter: Adapter, probes: ProbeSet, access: str = ALL, n_labels: int | None = None) -> Measurement:
    """Runs an adapted model on probes.

    Args:
      adapter: of the probes' space.
      probes: N pairs.
      access: level to which its outputs are restricted.
      n_labels: how many labels there are, for models that return label numbers.
    """
    ddv, seeds, partners = react_to_pairs(adapter, probes)
    inferred = infer_access(seeds)
    if access != ALL:
        seeds, partners = (np.asarray(restrict(x, access, n_labels), np.float32) for x in (seeds, partners))
        ddv = DDV(paired_distances(seeds, partners, metric="cosine"), probes.probe_set_id)
    reactions = Reactions.of(seeds, partners)
    return Measurement(
        model=adapter.model.summary,
        ddv=ddv,
        reactions=reactions,
        weights_sha256=adapter.model.weights_sha256,
        inferred_access=inferred,
        adaptations=adapter.steps,
        queries=adapter.queries,
    )
