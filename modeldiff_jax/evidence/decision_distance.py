"""Decision distance vectors of models under a probe set, and their cosine similarity: the paper's evidence."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float

from modeldiff_jax.errors import InvalidInputError, ModelDiffError, ProbeSetMismatchError
from modeldiff_jax.kernels import cosine_similarity, paired_distances
from modeldiff_jax.models.family import united
from modeldiff_jax.models.model import Model
from modeldiff_jax.probes.adapt import Adapter, adapt, react_together
from modeldiff_jax.probes.probe_set import ProbeSet

_REACTION_VALUES = 2**26
"""Values of reactions held at once for several models: 256 MiB."""


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

    def to_list(self) -> list[float]:
        """One vector as Python numbers, in the fewest digits that are the float32 values: for JSON."""
        return [float(str(value)) for value in np.asarray(self)]

    def __reduce__(self) -> Any:
        return DDV, (np.asarray(self), self.probe_set_id)


def ddv(models: Model | Sequence[Model], probes: ProbeSet) -> DDV:
    """Decision distance vectors of one model, or of several under the same probes.

    Models of one graph, or of equal Flax modules, are one family: one program is compiled for all of them, whatever
    their weights and wherever in the sequence they stand.

    Args:
      models: one model, or a sequence of M models.
      probes: N probe pairs.
    Returns:
      (N,), or (M, N) for a sequence.
    Raises:
      NotAdaptableError: the probes cannot be turned into a model's inputs.
      NonFiniteError: a model's outputs hold NaN or infinity.
    """
    if isinstance(models, Model):
        return measure_ddv(adapt(models, probes.space), probes)
    if not models:
        raise InvalidInputError("At least one model is needed", got="an empty sequence", where="ddv")
    families: dict[Hashable, list[tuple[int, Adapter]]] = {}
    for place, model in enumerate(united(models)):
        with _naming(place, len(models), model):
            adapter = adapt(model, probes.space)
        families.setdefault(adapter.program_key, []).append((place, adapter))
    vectors = np.empty((len(models), len(probes)), np.float32)
    for family in families.values():
        size = family[0][1].n_components
        at_once = max(1, _REACTION_VALUES // (2 * len(probes) * size)) if size else 1
        for start in range(0, len(family), at_once):
            members = family[start : start + at_once]
            adapters = [adapter for _, adapter in members]
            with _naming(members[0][0], len(models), adapters[0].model):  # of several none can fail but on its values
                sides = [react_together(adapters, x) for x in (probes.seeds, probes.partners)]
            for (place, adapter), seeds, partners in zip(members, *sides, strict=True):
                with _naming(place, len(models), adapter.model):
                    before, after = adapter.verified(seeds), adapter.verified(partners)
                vectors[place] = paired_distances(before, after, metric=probes.metric)
    return DDV(vectors, probes.probe_set_id)


@contextmanager
def _naming(place: int, count: int, model: Model) -> Iterator[None]:
    """Errors say which of several models they are about: their paths may be alike."""
    try:
        yield
    except ModelDiffError as error:
        where = f"model {place + 1} of {count}, {error.where or model.origin.path}"
        raise type(error)(error.rule, got=error.got, where=where, fix=error.fix) from error


def measure_ddv(adapter: Adapter, probes: ProbeSet) -> DDV:
    """Returns the decision distance vector of one adapted model."""
    return react_to_pairs(adapter, probes)[0]


def react_to_pairs(
    adapter: Adapter, probes: ProbeSet
) -> tuple[DDV, Float[np.ndarray, "n c"], Float[np.ndarray, "n c"]]:
    """Returns the decision distance vector of one adapted model, and its reactions to seeds and to their partners."""
    if adapter.space != probes.space:
        raise ProbeSetMismatchError(
            "An adapter serves the probe space it was made for",
            got=f"probes of {probes.space}, an adapter of {adapter.space}",
            where=adapter.model.origin.path,
            fix="adapt the model to the probes' space",
        )
    seeds, partners = adapter.react(probes.seeds), adapter.react(probes.partners)  # as many at a time as when made
    return DDV(paired_distances(seeds, partners, metric=probes.metric), probes.probe_set_id), seeds, partners


def same_probes(a: DDV, b: DDV) -> None:
    """Raises `ProbeSetMismatchError` unless both vectors were measured under one probe set."""
    ids = [getattr(v, "probe_set_id", "") for v in (a, b)]
    if not ids[0] or ids[0] != ids[1]:
        raise ProbeSetMismatchError(
            "DDVs compare only under one probe set",
            got=f"probe sets {ids[0] or 'unknown'} and {ids[1] or 'unknown'}",
            fix="measure both models with the same ProbeSet",
        )


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
