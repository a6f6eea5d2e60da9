"""Lineage: which of several models descends from which? The likeliest forest, with a probability for each parent."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from modeldiff_jax.detection.owner import Failure, describe
from modeldiff_jax.errors import InvalidInputError, ModelDiffError
from modeldiff_jax.evidence.descent import infer_descent
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.discover import ModelSources, model_sources
from modeldiff_jax.models.inputs.probed_input import InputHint
from modeldiff_jax.models.load import as_model
from modeldiff_jax.models.model import ModelSummary
from modeldiff_jax.probes.adapt import Adapter, adapt
from modeldiff_jax.probes.make import make_probes
from modeldiff_jax.report import HtmlReport
from modeldiff_jax.runtime.environment import SCHEMA_VERSION, environment
from modeldiff_jax.runtime.progress import Progress, no_progress

_CAUTION = (
    "Support was learned on image classifiers, in sets where some models are related. The probability of no parent "
    "among these is overstated: most models that were stolen by their outputs, distilled or pruned heavily appear to "
    "have none. Compare a pair with `modeldiff compare` before acting on its edge."
)


@dataclass(frozen=True)
class Lineage(HtmlReport):
    """The likeliest descent of M models. It holds no model and can be pickled.

    Attributes:
      models: origins and interfaces, in the order given; models that failed are left out.
      parents: index of each model's parent among them; None for "descends from none of these".
      support: probability of each entry of `parents`, in [0, 1].
      edges: (M, M), at [i, j] the probability that model i is the parent of model j; what a column lacks to 1 is the
        probability that j descends from none of these.
      n_pairs: probe pairs made on each model.
      key: random key.
      failures: models that could not be read, adapted or run.
      notes: remarks for a careful reader.
      seconds: wall time by step.
    """

    models: tuple[ModelSummary, ...]
    parents: tuple[int | None, ...]
    support: tuple[float, ...]
    edges: Float[np.ndarray, "m m"]
    n_pairs: int
    key: int
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    seconds: Mapping[str, float]

    @property
    def roots(self) -> tuple[int, ...]:
        """Indices of the models that descend from none of the others."""
        return tuple(i for i, parent in enumerate(self.parents) if parent is None)

    def children(self, parent: int | None) -> tuple[int, ...]:
        """Returns the indices of a model's children, which are siblings; for None those of the roots."""
        return tuple(i for i, above in enumerate(self.parents) if above == parent)

    def likely(self, child: int, most: int = 3) -> list[tuple[int | None, float]]:
        """Returns a model's likeliest parents, None for no parent, with their probabilities; the likeliest first."""
        probability = np.append(self.edges[:, child], max(0.0, 1 - float(self.edges[:, child].sum())))
        order = [int(i) for i in np.argsort(-probability, kind="stable") if i != child][:most]
        return [(i if i < len(self.models) else None, float(probability[i])) for i in order]

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as JSON-able data, by the schema `modeldiff_jax/report/schema.json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "lineage",
            **environment(),
            "rows": [
                {
                    "model": model.to_dict(),
                    "parent": parent,
                    "support": round(support, 4),
                    "likely": [{"parent": i, "support": round(p, 4)} for i, p in self.likely(child)],
                }
                for child, (model, parent, support) in enumerate(
                    zip(self.models, self.parents, self.support, strict=True)
                )
            ],
            "n_pairs": self.n_pairs,
            "failures": [failure.to_dict() for failure in self.failures],
            "notes": [*self.notes, _CAUTION],
            "key": self.key,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


def lineage(
    models: ModelSources,
    *,
    seeds: Any = None,
    n_pairs: int | None = None,
    n_steps: int | None = None,
    key: int = 0,
    hint: InputHint | None = None,
    limits: Limits = DEFAULT,
    progress: Progress | None = None,
) -> Lineage:
    """Infers which of these models descends from which.

    Partners are made on every model, and every model reacts to all of them: M^2 N reactions. Models with equal numbers
    of outputs count as sharing a label space. The weights of edge features were learned on image classifiers, 100
    pairs each. On these, support is too low in sets with few relatives and too high where all models are relatives; on
    other models it is no more than a ranking. `bench/modelreuse/README.md`, Lineage, has the measured error rates.

    Args:
      models: two or more; models, files or folders. They are all probed in the first one's probe space. One that cannot
        be read or run is left out and named in `failures`.
      seeds: a folder of images, an array or its file, or a pack's name; None for the built-in pack. Inputs like those
        that the models were trained on are best.
      n_pairs: probe pairs made on each model; None for 100, or for all seeds where there are fewer.
      n_steps: attack steps; None for the usual effort.
      key: random key; the same key gives the same lineage.
      hint: which input is probed, and its layout and value range, where they cannot be inferred from the model.
      limits: limits on untrusted files.
      progress: called before each model is probed.

    Raises:
      ModelDiffError: fewer than two models can be read, adapted and run, or an argument is wrong; see `errors.py`.
    """
    sources, left_out = model_sources(models, limits)
    if len(sources) < 2:
        raise InvalidInputError("A lineage is of two models or more", got=str(len(sources)), where="lineage")
    report, start = progress or no_progress, time.perf_counter()
    adapters: list[Adapter] = []
    failures: list[Failure] = []
    for source in sources:
        try:
            adapters.append(adapt(as_model(source, limits), adapters[0].space if adapters else None, hint))
        except ModelDiffError as error:
            failures.append(Failure("model", describe(source), error))
    pairs: list[tuple[list[np.ndarray], list[np.ndarray]]] = []
    seed_reactions: list[np.ndarray] = []
    for i, adapter in enumerate(adapters if len(adapters) > 1 else ()):
        report(f"Probing model {i + 1} of {len(adapters)}", i, len(adapters))
        probes = make_probes(adapter, seeds=seeds, n_pairs=n_pairs, n_steps=n_steps, key=key, limits=limits)
        # one key draws the same seeds for all models
        seed_reactions = seed_reactions or [reactor.react(probes.seeds) for reactor in adapters]
        pairs.append((seed_reactions, [reactor.react(probes.partners) for reactor in adapters]))
    if len(adapters) < 2:
        raise failures[0].error
    probed = time.perf_counter()
    descent = infer_descent(pairs, [adapter.n_components for adapter in adapters])
    return Lineage(
        models=tuple(adapter.model.summary for adapter in adapters),
        parents=tuple(None if parent < 0 else int(parent) for parent in descent.parents),
        support=tuple(map(float, descent.support)),
        edges=descent.edges,
        n_pairs=len(pairs[0][1][0]),
        key=key,
        failures=tuple(failures),
        notes=(*map(str, failures), *left_out),
        seconds={"probing": probed - start, "total": time.perf_counter() - start},
    )
