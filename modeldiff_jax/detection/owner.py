"""The owner's side of every question: a target under a probe set, which measures models and ranks measurements."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from modeldiff_jax.detection.isolated import IsolatedMeasurer
from modeldiff_jax.detection.measurement import Measurement, measure
from modeldiff_jax.detection.ranking import Ranking, rank
from modeldiff_jax.detection.settings import Settings
from modeldiff_jax.errors import ModelDiffError
from modeldiff_jax.models.load import ModelLike, as_model
from modeldiff_jax.probes.adapt import Adapter, adapt
from modeldiff_jax.probes.effort import Method
from modeldiff_jax.probes.make import make_probes
from modeldiff_jax.probes.probe_set import ProbeSet


@dataclass(frozen=True)
class Failure:
    """A model that could not be read, adapted or run, and was left out.

    Attributes:
      role: `suspect`, `reference` or `model`.
      path: the file, or a description of the object.
      error: why.
    """

    role: str
    path: str
    error: ModelDiffError

    def to_dict(self) -> dict[str, Any]:
        """Returns role, path and the error's fields as JSON-able data."""
        return {"role": self.role, "path": self.path, "error": self.error.to_dict()}

    def __str__(self) -> str:
        return f"The {self.role} {self.path} was left out: {self.error.rule} (got {self.error.got})."


class Owner:
    """A target under a probe set.

    A context manager: leaving it ends the child process that models are isolated in, if there is one.

    Args:
      target: the owner's model, adapted to the probes' space.
      probes: made without any suspect, so that references measured under them give valid p-values.
      settings: of the question.

    Attributes:
      measurement: the target's own.
    """

    def __init__(self, target: Adapter, probes: ProbeSet, settings: Settings) -> None:
        self.probes, self._settings = probes, settings
        self.measurement = measure(target, probes, settings.access)
        self._isolated = (
            IsolatedMeasurer(probes, settings, self.measurement.reactions.n_outputs) if settings.isolate else None
        )

    def __enter__(self) -> Owner:
        return self

    def __exit__(self, *error: object) -> None:
        if self._isolated:
            self._isolated.close()

    @classmethod
    def of(cls, target: ModelLike, settings: Settings, probes: ProbeSet | None = None) -> Owner:
        """Reads the target and makes probes on it, unless some are given."""
        adapter = adapt(as_model(target, settings.limits), probes.space if probes else None, settings.hint)
        method: Method | None = "search" if settings.black_box else None
        probes = probes or make_probes(
            adapter,
            seeds=settings.seeds,
            n_pairs=settings.n_pairs,
            n_steps=settings.n_steps,
            key=settings.key,
            method=method,
            limits=settings.limits,
        )
        return cls(adapter, probes, settings)

    def measure(self, source: ModelLike | Adapter) -> Measurement:
        """Runs a model on the owner's probes, seen through the access level of the settings.

        Raises:
          ModelDiffError: it cannot be read, adapted or run.
        """
        if self._isolated and isinstance(source, (str, os.PathLike)):
            return self._isolated.measure(source)
        adapter = (
            source
            if isinstance(source, Adapter)
            else adapt(as_model(source, self._settings.limits), self.probes.space, self._settings.hint)
        )
        return measure(adapter, self.probes, self._settings.access, self.measurement.reactions.n_outputs)

    def measure_all(
        self, sources: Iterable[ModelLike], role: str, each: Callable[[int], None] | None = None
    ) -> tuple[list[Measurement | None], list[Failure]]:
        """Measures several models; one that fails is left out, and named.

        Args:
          sources: models or files.
          role: what they are, for messages.
          each: called with the number of each model before it is measured.
        Returns:
          A measurement for each source, None for those that failed, and the failures.
        """
        measurements: list[Measurement | None] = []
        failures = []
        for i, source in enumerate(sources):
            if each:
                each(i)
            try:
                measurements.append(self.measure(source))
            except ModelDiffError as error:
                failures.append(Failure(role, describe(source), error))
                measurements.append(None)
        return measurements, failures

    def rank(self, suspect: Measurement, references: Sequence[Measurement]) -> Ranking:
        """Ranks a suspect among references; see `modeldiff_jax.detection.ranking.rank`."""
        return rank(self.measurement, suspect, references, self.probes, self._settings.alpha, self._settings.access)


def describe(source: ModelLike) -> str:
    """Returns the path of a file, or the description of a model."""
    return source.origin.path if hasattr(source, "origin") else str(source)
