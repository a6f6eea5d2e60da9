"""Ours: several views of the reactions to the same pairs, each held against unrelated models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.modelreuse.study import Orientation, Study
from modeldiff_jax.evidence.relatedness import Reactions, relatedness


def ours(study: Study, owners: Sequence[str], suspects: Sequence[str], orientation: Orientation) -> np.ndarray:
    """The fused score. References for two models are all models of other roots than theirs, so no relative of either is
    among them, and nothing is learnt from the zoo."""
    names = study.names
    number = {name: i for i, name in enumerate(names)}
    roots = np.array([study.entry(name).root for name in names])
    tables = {}
    for side, ones, others in (("owner", owners, suspects), ("suspect", suspects, owners)):
        if orientation in (side, "both"):
            table = np.array([_row(study, one, roots, number) for one in ones])[:, [number[name] for name in others]]
            tables[side] = table if side == "owner" else table.T
    return np.mean(list(tables.values()), axis=0)


def _row(study: Study, one: str, roots: np.ndarray, number: dict[str, int]) -> np.ndarray:
    """Scores of a model, on whose pairs they are, with all models."""
    own = study.prober(one)
    reactions = study.kept(lambda: _reactions(study, own), "reactions", own)
    row = np.full(len(roots), -np.inf)
    i = number[one]
    for root in sorted(set(roots)):
        references = (roots != roots[i]) & (roots != root)
        others = np.flatnonzero(roots == root)
        row[others] = relatedness(reactions, i, others.tolist(), references)["related"]
    return row


def _reactions(study: Study, prober: str) -> Reactions:
    seeds, partners = study.on_pairs(prober, study.names)
    entries = [study.entry(name) for name in study.names]
    return Reactions(
        [seeds[name] for name in study.names],
        [partners[name] for name in study.names],
        [(entry.dataset, entry.classes) for entry in entries],
    )
