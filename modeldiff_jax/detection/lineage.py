"""Several models -> the tree of who descends from whom, with how sure it is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.descent import kinship
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.inputs.space import InputHint, space_of
from modeldiff_jax.models.load import ModelLike, as_model
from modeldiff_jax.models.model import Model
from modeldiff_jax.probes.adapt import adapt
from modeldiff_jax.probes.make import make_probes
from modeldiff_jax.report import HtmlReport
from modeldiff_jax.runtime.environment import SCHEMA_VERSION, environment
from modeldiff_jax.runtime.progress import Progress

_CAUTION = (
    "Support was learned on image classifiers, in sets of which some are kin. That a model descends from none of these "
    "is surer said than known: most of what was stolen by its answers, distilled or pruned heavily looks so."
)


@dataclass(frozen=True)
class Lineage(HtmlReport):
    """The likeliest descent of M models.

    Attributes:
      models: in the order given.
      parents: of each the number of its parent among them; None for "descends from none of these".
      support: how likely each of these is, in [0, 1].
      edges: (M, M), how likely model i is the parent of model j, at [i, j]; a column's rest is that j has none of them.
      n_pairs: probe pairs made on each model.
      key: random key.
      seconds: what the parts took.
    """

    models: tuple[Model, ...]
    parents: tuple[int | None, ...]
    support: tuple[float, ...]
    edges: Float[np.ndarray, "m m"]
    n_pairs: int
    key: int
    seconds: Mapping[str, float]

    @property
    def roots(self) -> tuple[int, ...]:
        """Numbers of the models that descend from none of the others."""
        return tuple(i for i, parent in enumerate(self.parents) if parent is None)

    def children(self, parent: int | None) -> tuple[int, ...]:
        """Numbers of a model's children, each other's siblings; of the roots, which need not be, for None."""
        return tuple(i for i, above in enumerate(self.parents) if above == parent)

    def likely(self, child: int, most: int = 3) -> list[tuple[int | None, float]]:
        """A model's likeliest parents, None for none of these, and how likely each is; the likeliest first."""
        share = np.append(self.edges[:, child], max(0.0, 1 - float(self.edges[:, child].sum())))
        order = [int(i) for i in np.argsort(-share, kind="stable") if i != child][:most]
        return [(i if i < len(self.models) else None, float(share[i])) for i in order]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able data, by the schema `modeldiff_jax/report/schema.json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "lineage",
            **environment(),
            "rows": [
                {
                    "model": model.to_dict(),
                    "parent": parent,
                    "support": round(support, 4),
                    "likely": [{"parent": i, "support": round(share, 4)} for i, share in self.likely(child)],
                }
                for child, (model, parent, support) in enumerate(
                    zip(self.models, self.parents, self.support, strict=True)
                )
            ],
            "n_pairs": self.n_pairs,
            "notes": [_CAUTION],
            "key": self.key,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


def lineage(
    models: Sequence[ModelLike],
    *,
    seeds: Any = None,
    n_pairs: int = 100,
    n_steps: int | None = None,
    key: int = 0,
    hint: InputHint | None = None,
    limits: Limits = DEFAULT,
    progress: Progress | None = None,
) -> Lineage:
    """Which of these models descends from which?

    Partners are made on every model, and every model answers all of them: M^2 N answers. Models with equal numbers of
    outputs are taken to share a label space. Which weights clues have was learned on image classifiers, 100 pairs each.
    There support is too low in sets with little kin and too high in families; elsewhere it is no more than a ranking.
    `bench/modelreuse/README.md`, Lineage, has the measured error rates.

    Args:
      models: two or more; a `Model` or a file each. They are all probed in the first one's input space.
      seeds: a folder of images, an array or its file, or a pack's name; None for the built-in pack. Best are inputs of
        the models' own tasks.
      n_pairs: probe pairs made on each model.
      n_steps: attack steps; None for the usual effort.
      key: random key; the same one gives the same tree.
      hint: which input is probed, and its layout and value range, where they cannot be told from the model.
      limits: bounds on hostile input.
      progress: called before each model is probed.

    Raises:
      ModelDiffError: a model cannot be read, adapted or run, or an argument is wrong; see `errors.py`.
    """
    if isinstance(models, (str, Path, Model)) or len(models) < 2:
        raise InvalidInputError(
            "A lineage is of two models or more",
            got="one" if isinstance(models, (str, Path, Model)) else str(len(models)),
            where="lineage",
        )
    start = time.perf_counter()
    read = tuple(as_model(model, limits) for model in models)
    space = space_of(read[0], hint)
    adapters = [adapt(model, space, hint) for model in read]
    pairs: list[tuple[list[np.ndarray], list[np.ndarray]]] = []
    for i, adapter in enumerate(adapters):
        if progress:
            progress(f"Probing model {i + 1} of {len(read)}", i, len(read))
        probes = make_probes(adapter, seeds=seeds, n_pairs=n_pairs, n_steps=n_steps, key=key, limits=limits)
        # the key being one, so are the seeds
        own = pairs[0][0] if pairs else [each.react(probes.seeds) for each in adapters]
        pairs.append((own, [each.react(probes.partners) for each in adapters]))
    probed = time.perf_counter()
    found = kinship(pairs, [adapter.n_components for adapter in adapters])
    return Lineage(
        models=read,
        parents=tuple(None if parent < 0 else int(parent) for parent in found.parents),
        support=tuple(map(float, found.support)),
        edges=found.edges,
        n_pairs=n_pairs,
        key=key,
        seconds={"probing": probed - start, "total": time.perf_counter() - start},
    )
