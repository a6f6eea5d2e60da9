"""Ours: several views of the reactions to the same pairs, each held against unrelated models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.modelreuse.study import Orientation, Study
from modeldiff_jax.evidence.relatedness import Reactions, relatedness


def ours(study: Study, owners: Sequence[str], suspects: Sequence[str], orientation: Orientation) -> np.ndarray:
    """The fused score. An owner's references are all models of other roots, on whoever's pairs; each is left out of its
    own comparison."""
    number = {name: i for i, name in enumerate(study.names)}
    roots = np.array([study.entry(name).root for name in study.names])
    tables = {side: np.empty((len(owners), len(suspects))) for side in ("owner", "suspect")}
    for root in dict.fromkeys(study.entry(owner).root for owner in owners):
        places = [i for i, owner in enumerate(owners) if study.entry(owner).root == root]
        ones = [number[owners[i]] for i in places]
        others = [number[suspect] for suspect in suspects]

        def scores(prober: str, ones: list[int], others: list[int], root: str = root) -> np.ndarray:
            return relatedness(reactions_to(study, study.prober(prober)), ones, others, roots != root)["related"]

        if orientation != "suspect":
            for i in places:
                tables["owner"][i] = scores(owners[i], [number[owners[i]]], others)
        if orientation != "owner":
            for j, suspect in enumerate(suspects):
                tables["suspect"][places, j] = scores(suspect, ones, [others[j]])[:, 0]
    asked = ("owner", "suspect") if orientation == "both" else (orientation,)
    return np.mean([tables[side] for side in asked], axis=0)


def reactions_to(study: Study, prober: str) -> Reactions:
    """All models' reactions to the pairs made on one."""

    def make() -> Reactions:
        seeds, partners = study.on_pairs(prober, study.names)
        tasks = [(study.entry(name).dataset, study.entry(name).classes) for name in study.names]
        return Reactions([seeds[name] for name in study.names], [partners[name] for name in study.names], tasks)

    return study.kept(make, "reactions", prober)
