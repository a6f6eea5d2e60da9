"""Our method: several representations of the reactions to the same pairs, each scored against references."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.modelreuse.study import Orientation, Study
from modeldiff_jax.evidence.relatedness import ReactionTable, relatedness
from modeldiff_jax.evidence.representations import as_logits


def ours(study: Study, owners: Sequence[str], suspects: Sequence[str], orientation: Orientation) -> np.ndarray:
    """Returns the fused score. An owner's references are all models of other roots, whichever model the pairs are made
    on; each is left out of its own comparison."""
    number = {name: i for i, name in enumerate(study.names)}
    roots = np.array([study.entry(name).root for name in study.names])
    owners_by_root: dict[str, list[int]] = {}
    for i, owner in enumerate(owners):
        owners_by_root.setdefault(study.entry(owner).root, []).append(i)
    sides = ("owner", "suspect") if orientation == "both" else (orientation,)
    total = np.zeros((len(owners), len(suspects)))
    for side in sides:
        models_by_prober: dict[str, list[int]] = {}
        for k, name in enumerate(owners if side == "owner" else suspects):
            models_by_prober.setdefault(study.prober(name), []).append(k)
        for prober, models in models_by_prober.items():
            reactions = reactions_to(study, prober)
            for root, owners_of_root in owners_by_root.items():
                rows = [i for i in owners_of_root if i in models] if side == "owner" else owners_of_root
                columns = models if side == "suspect" else list(range(len(suspects)))
                if rows:
                    total[np.ix_(rows, columns)] += relatedness(
                        reactions,
                        [number[owners[i]] for i in rows],
                        [number[suspects[j]] for j in columns],
                        roots != root,
                    )["related"]
    return total / len(sides)


def reactions_to(study: Study, prober: str) -> ReactionTable:
    """Returns all models' reactions to the pairs made on one model."""

    def compute() -> ReactionTable:
        seeds, partners = study.on_pairs(prober, study.names)
        label_spaces = [(study.entry(name).dataset, study.entry(name).classes) for name in study.names]
        dataset = study.entry(prober).dataset
        return ReactionTable(
            [as_logits(seeds[name]) for name in study.names],
            [as_logits(partners[name]) for name in study.names],
            label_spaces,
            study.cached(dict, "representations of seeds", dataset),
        )

    return study.cached(compute, "reactions", prober)
