"""Scores of relatedness: several representations of models' reactions, each against unrelated models, and fused.

What a derived model keeps differs. A stolen function moves logits and probabilities together; features tuned for
another task move decision distances and geometry; a damaged copy, logits and decision distances. None moves all of
them, and a chance likeness seldom moves two. So the fused score is the sum of the two strongest.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial

import numpy as np
from jaxtyping import Bool, Float

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.representations import REPRESENTATIONS, Representation
from modeldiff_jax.evidence.whitening import WithinClassWhitening, gram

_MOST = 0.9995
"""Similarity above which two models count as the same."""
_FEWEST = 5
"""References of one task from which a mean and a deviation are taken."""


class ReactionTable:
    """The reactions of M models to one probe set, with what is computed of them once.

    Args:
      seeds, partners: for each model the reactions to N seeds and to their partners, (N, C), C its own.
      tasks: of each model; equal for models of one label space.
      shared: a store for what is computed of the seeds alone; probe sets of the same seeds may share it.
    """

    def __init__(
        self,
        seeds: Sequence[Float[np.ndarray, "n _"]],
        partners: Sequence[Float[np.ndarray, "n _"]],
        tasks: Sequence[Hashable],
        shared: dict[Hashable, np.ndarray] | None = None,
    ) -> None:
        if not len(seeds) == len(partners) == len(tasks):
            got = f"{len(seeds)}, {len(partners)} and {len(tasks)}"
            raise InvalidInputError("Seeds, partners and tasks are as many as models", got=got, where="ReactionTable")
        self._seeds, self._partners, self.tasks = seeds, partners, list(tasks)
        self._cache: dict[Hashable, np.ndarray] = {}
        self._shared = {} if shared is None else shared
        self._whole: tuple[ReactionTable, Sequence[int]] | None = None

    def subset(self, models: Sequence[int]) -> ReactionTable:
        """Returns a table of some of the models, in that order, which takes inner products from this one."""
        seeds, partners = ([side[i] for i in models] for side in (self._seeds, self._partners))
        part = ReactionTable(seeds, partners, [self.tasks[i] for i in models])
        part._whole = self, models
        return part

    def comparable(self, representation: Representation, target: int) -> Bool[np.ndarray, " m"]:
        """Returns which models the representation can compare with a target."""
        return np.array([not representation.same_labels or task == self.tasks[target] for task in self.tasks])

    def gram(self, representation: Representation, target: int) -> Float[np.ndarray, "k k"]:
        """Returns inner products of the comparable models' vectors, computed once."""

        def compute() -> np.ndarray:
            rows = np.flatnonzero(self.comparable(representation, target)).tolist()
            if self._whole is None:
                return gram(np.stack([representation.vector(self._seeds[i], self._partners[i]) for i in rows]))
            table, models = self._whole
            place = np.cumsum(table.comparable(representation, models[target])) - 1
            chosen = place[[models[i] for i in rows]]
            return table.gram(representation, models[target])[np.ix_(chosen, chosen)]

        return self.cached(representation, compute, self.tasks[target] if representation.same_labels else None)

    def cached(self, representation: Representation, compute: Callable[[], np.ndarray], *key: Hashable) -> np.ndarray:
        """Returns `compute()`, called once for each representation and key.

        Where the representation reads seeds only, that is once for all probe sets of one store.
        """
        store, full_key = self._cache if representation.partners else self._shared, (representation.name, *key)
        if full_key not in store:
            store[full_key] = compute()
        return store[full_key]


def relatedness(
    table: ReactionTable, targets: Sequence[int], others: Sequence[int], references: Bool[np.ndarray, " m"]
) -> dict[str, Float[np.ndarray, "i k"]]:
    """Scores how related some models are to others, by all representations.

    Args:
      table: of all models.
      targets: indices of the models in question, such as an owner's.
      others: indices of the models they are compared with, references among them if need be: each is left out of its
        own comparison, so that references' scores are distributed like scores of unrelated models.
      references: which models are known to be unrelated to the targets. Two or more.
    Returns:
      For each representation, and for `related`, a score for each pair. A representation's is in standard deviations of
      the similarities between the target and references of the other's task, above their mean (cohort score
      normalisation, z-norm); NaN where it cannot compare the two. `related` is the fused score (`fuse`).
    """
    if references.sum() < 2 or references[list(targets)].any():
        raise InvalidInputError(
            "References are two or more models, and none of the targets",
            got=f"{references.sum()} references",
            where="relatedness",
        )
    found = {}
    for representation in REPRESENTATIONS.values():
        scores = np.full((len(table.tasks), len(references)), np.nan)
        for task in dict.fromkeys(table.tasks[target] for target in targets):
            same_task = [target for target in targets if table.tasks[target] == task]
            scores[same_task] = table.cached(
                representation,
                partial(_cohort_scores, table, representation, same_task, references),
                tuple(same_task),
                references.tobytes(),
            )
        found[representation.name] = scores[np.ix_(targets, others)]
    return {**found, "related": fuse(found)}


def fuse(scores: Mapping[str, Float[np.ndarray, "*k"]]) -> Float[np.ndarray, "*k"]:
    """Returns the sum of the two greatest of the representations' scores; NaN where fewer than two can compare."""
    known = np.stack([np.where(np.isnan(scores[name]), -np.inf, scores[name]) for name in REPRESENTATIONS])
    strongest = np.sort(known, axis=0)[-2:].sum(axis=0)
    return np.where(np.isfinite(strongest), strongest, np.nan)


def _cohort_scores(
    table: ReactionTable, representation: Representation, targets: Sequence[int], references: Bool[np.ndarray, " m"]
) -> Float[np.ndarray, "i m"]:
    """Scores targets of one task against all models by one representation."""
    rows = np.flatnonzero(table.comparable(representation, targets[0]))
    pool = references[rows]
    scores = np.full((len(targets), len(references)), np.nan)
    if pool.sum() < 2:
        return scores
    tasks = [table.tasks[row] for row in rows]
    whitening = WithinClassWhitening(table.gram(representation, targets[0]), tasks, pool)
    near = whitening.similarities([int(np.flatnonzero(rows == target)[0]) for target in targets])
    near = np.arctanh(np.clip(near, -_MOST, _MOST))
    for task in set(tasks):
        same_task = np.array([name == task for name in tasks])
        cohort = near[:, pool & same_task if (pool & same_task).sum() >= _FEWEST else pool]
        deviation = cohort.std(axis=1, keepdims=True) + 1e-3
        scores[:, rows[same_task]] = (near[:, same_task] - cohort.mean(axis=1, keepdims=True)) / deviation
    return scores
