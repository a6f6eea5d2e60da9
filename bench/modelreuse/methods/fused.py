"""Ours: several views of the reactions to the same pairs, each held against unrelated models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.modelreuse.study import Orientation, Study
from modeldiff_jax.evidence.relatedness import Reactions, relatedness


def ours(study: Study, owners: Sequence[str], suspects: Sequence[str], orientation: Orientation) -> np.ndarray:
    """The fused score. References of a model are all models of other roots; each is left out of its own comparison."""
    number = {name: i for i, name in enumerate(study.names)}
    tables = []
    for side, ones, others in (("owner", owners, suspects), ("suspect", suspects, owners)):
        if orientation in (side, "both"):
            table = np.array([_row(study, one, [number[name] for name in others]) for one in ones])
            tables.append(table if side == "owner" else table.T)
    return np.mean(tables, axis=0)


def _row(study: Study, one: str, others: list[int]) -> np.ndarray:
    """Scores of a model, on whose pairs they are, with others."""
    own = study.prober(one)
    reactions = study.kept(lambda: _reactions(study, own), "reactions", own)
    roots = np.array([study.entry(name).root for name in study.names])
    i = study.names.index(one)
    return relatedness(reactions, i, others, roots != roots[i])["related"]


def _reactions(study: Study, prober: str) -> Reactions:
    seeds, partners = study.on_pairs(prober, study.names)
    entries = [study.entry(name) for name in study.names]
    return Reactions(
        [seeds[name] for name in study.names],
        [partners[name] for name in study.names],
        [(entry.dataset, entry.classes) for entry in entries],
    )
