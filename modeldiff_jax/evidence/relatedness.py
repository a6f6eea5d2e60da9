"""Scores of relatedness: several representations of models' reactions, each against references, and fused.

Derivations keep different things. A stolen function raises the scores of logits and probabilities together; features
fine-tuned to other labels, those of decision distances and geometry; a damaged copy, those of logits and decision
distances. None raises all of them, and chance seldom raises two. So the fused score is the sum of the two greatest.
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
"""Fewest references of one label space from which a mean and a deviation are taken."""


class ReactionTable:
    """The reactions of M models to one probe set, and a cache of what is computed from them.

    Args:
      seeds, partners: for each model the reactions to N seeds and to their partners, (N, C); C may differ.
      label_spaces: one for each model; equal where outputs mean the same.
      shared: a cache for what is computed from the seeds alone; probe sets of the same seeds may share it.
    """

    def __init__(
        self,
        seeds: Sequence[Float[np.ndarray, "n _"]],
        partners: Sequence[Float[np.ndarray, "n _"]],
        label_spaces: Sequence[Hashable],
        shared: dict[Hashable, np.ndarray] | None = None,
    ) -> None:
        if not len(seeds) == len(partners) == len(label_spaces):
            got = f"{len(seeds)}, {len(partners)} and {len(label_spaces)}"
            rule = "Each model has reactions to seeds and to partners, and a label space"
            raise InvalidInputError(rule, got=got, where="ReactionTable")
        self._seeds, self._partners, self.label_spaces = seeds, partners, list(label_spaces)
        self._cache: dict[Hashable, np.ndarray] = {}
        self._shared = {} if shared is None else shared
        self._whole: tuple[ReactionTable, Sequence[int]] | None = None

    def subset(self, models: Sequence[int]) -> ReactionTable:
        """Returns a table of some of the models, in that order, which takes inner products from this one."""
        seeds, partners = ([side[i] for i in models] for side in (self._seeds, self._partners))
        part = ReactionTable(seeds, partners, [self.label_spaces[i] for i in models])
        part._whole = self, models
        return part

    def comparable(self, representation: Representation, target: int) -> Bool[np.ndarray, " m"]:
        """Returns which models the representation can compare with a target."""
        return np.array(
            [not representation.same_label_space or space == self.label_spaces[target] for space in self.label_spaces]
        )

    def gram(self, representation: Representation, target: int) -> Float[np.ndarray, "k k"]:
        """Returns inner products of the comparable models' vectors; they are cached."""

        def compute() -> np.ndarray:
            rows = np.flatnonzero(self.comparable(representation, target)).tolist()
            if self._whole is None:
                return gram(np.stack([representation.vector(self._seeds[i], self._partners[i]) for i in rows]))
            table, models = self._whole
            row_of = np.cumsum(table.comparable(representation, models[target])) - 1
            chosen = row_of[[models[i] for i in rows]]
            return table.gram(representation, models[target])[np.ix_(chosen, chosen)]

        return self.cached(
            representation, compute, self.label_spaces[target] if representation.same_label_space else None
        )

    def cached(self, representation: Representation, compute: Callable[[], np.ndarray], *key: Hashable) -> np.ndarray:
        """Returns `compute()`, called once for each representation and key.

        Where the representation reads seeds only, tables that share a cache compute it once among them.
        """
        cache, full_key = self._cache if representation.partners else self._shared, (representation.name, *key)
        if full_key not in cache:
            cache[full_key] = compute()
        return cache[full_key]


def relatedness(
    table: ReactionTable, targets: Sequence[int], others: Sequence[int], references: Bool[np.ndarray, " m"]
) -> dict[str, Float[np.ndarray, "i k"]]:
    """Scores how related some models are to others, by all representations.

    Args:
      table: all models' reactions.
      targets: indices of the models whose relatives are sought, such as an owner's.
      others: indices of the models they are compared with, references among them if need be: each is left out of its
        own comparison, so that references' scores are distributed like those of other unrelated models.
      references: which models are known to be unrelated to the targets. Two or more.
    Returns:
      For each representation, and for `related`, a score for each target and each other model. A representation's score
      is in standard deviations of the similarities between the target and references of the other model's label space,
      above their mean (cohort score normalisation, z-norm); NaN where it cannot compare the two. `related` is the fused
      score (`fuse`).
    """
    if references.sum() < 2 or references[list(targets)].any():
        raise InvalidInputError(
            "References are two or more models, and none of the targets",
            got=f"{references.sum()} references",
            where="relatedness",
        )
    scores_by_name = {}
    for representation in REPRESENTATIONS.values():
        scores = np.full((len(table.label_spaces), len(references)), np.nan)
        for space in dict.fromkeys(table.label_spaces[target] for target in targets):
            same_space = [target for target in targets if table.label_spaces[target] == space]
            scores[same_space] = table.cached(
                representation,
                partial(_cohort_scores, table, representation, same_space, references),
                tuple(same_space),
                references.tobytes(),
            )
        scores_by_name[representation.name] = scores[np.ix_(targets, others)]
    return {**scores_by_name, "related": fuse(scores_by_name)}


def fuse(scores: Mapping[str, Float[np.ndarray, "*k"]]) -> Float[np.ndarray, "*k"]:
    """Returns the sum of the two greatest of the representations' scores; NaN where fewer than two can compare."""
    comparable = np.stack([np.where(np.isnan(scores[name]), -np.inf, scores[name]) for name in REPRESENTATIONS])
    fused = np.sort(comparable, axis=0)[-2:].sum(axis=0)
    return np.where(np.isfinite(fused), fused, np.nan)


def _cohort_scores(
    table: ReactionTable, representation: Representation, targets: Sequence[int], references: Bool[np.ndarray, " m"]
) -> Float[np.ndarray, "i m"]:
    """Returns the scores of targets of one label space against all models, by one representation."""
    rows = np.flatnonzero(table.comparable(representation, targets[0]))
    pool = references[rows]
    scores = np.full((len(targets), len(references)), np.nan)
    if pool.sum() < 2:
        return scores
    label_spaces = [table.label_spaces[row] for row in rows]
    whitening = WithinClassWhitening(table.gram(representation, targets[0]), label_spaces, pool)
    similarities = whitening.similarities([int(np.flatnonzero(rows == target)[0]) for target in targets])
    similarities = np.arctanh(np.clip(similarities, -_MOST, _MOST))
    for space in set(label_spaces):
        same_space = np.array([other == space for other in label_spaces])
        cohort = similarities[:, pool & same_space if (pool & same_space).sum() >= _FEWEST else pool]
        deviation = cohort.std(axis=1, keepdims=True) + 1e-3
        scores[:, rows[same_space]] = (similarities[:, same_space] - cohort.mean(axis=1, keepdims=True)) / deviation
    return scores
