"""Ours: several representations of the reactions to the same pairs, each scored against unrelated models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.modelreuse.study import Orientation, Study
from modeldiff_jax.evidence.relatedness import ReactionTable, relatedness
from modeldiff_jax.evidence.representations import as_logits


def ours(study: Study, owners: Sequence[str], suspects: Sequence[str], orientation: Orientation) -> np.ndarray:
    """The fused score. An owner's references are all models of other roots, on whoever's pairs; each is left out of its
    own comparison."""
    number = {name: i for i, name in enumerate(study.names)}
    roots = np.array([study.entry(name).root for name in study.names])
    places: dict[str, list[int]] = {}
    for i, owner in enumerate(owners):
        places.setdefault(study.entry(owner).root, []).append(i)
    asked = ("owner", "suspect") if orientation == "both" else (orientation,)
    total = np.zeros((len(owners), len(suspects)))
    for side in asked:
        of_prober: dict[str, list[int]] = {}
        for k, name in enumerate(owners if side == "owner" else suspects):
            of_prober.setdefault(study.prober(name), []).append(k)
        for prober, mine in of_prober.items():
            reactions = reactions_to(study, prober)
            for root, of_root in places.items():
                rows = [i for i in of_root if i in mine] if side == "owner" else of_root
                columns = mine if side == "suspect" else list(range(len(suspects)))
                if rows:
                    total[np.ix_(rows, columns)] += relatedness(
                        reactions,
                        [number[owners[i]] for i in rows],
                        [number[suspects[j]] for j in columns],
                        roots != root,
                    )["related"]
    return total / len(asked)


def reactions_to(study: Study, prober: str) -> Reactions:
    """All models' reactions to the pairs made on one."""

    def make() -> Reactions:
        seeds, partners = study.on_pairs(prober, study.names)
        tasks = [(study.entry(name).dataset, study.entry(name).classes) for name in study.names]
        dataset = study.entry(prober).dataset
        return ReactionTable(
            [as_logits(seeds[name]) for name in study.names],
            [as_logits(partners[name]) for name in study.names],
            tasks,
            study.kept(dict, "views of seeds", dataset),
        )

    return study.kept(make, "reactions", prober)
