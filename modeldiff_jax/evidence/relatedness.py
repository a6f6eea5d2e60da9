"""Several views of models' reactions, each held against unrelated models, and fused to one score.

What a derived model keeps differs. A stolen function moves logits and probabilities together; features tuned for
another task move decision distances and geometry; a damaged copy, logits and decision distances. None moves all of
them, and a chance likeness seldom moves two. So the score is the sum of the two strongest views.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial

import numpy as np
from jaxtyping import Bool, Float

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.evidence.representations import VIEWS, View
from modeldiff_jax.evidence.whitening import Residuals, gram

_MOST = 0.9995
"""Similarity above which two models count as the same."""
_FEWEST = 5
"""References of one task from which a mean and a deviation are taken."""


class Reactions:
    """What M models answered to one probe set.

    Args:
      seeds, partners: for each model the reactions to N seeds and to their partners, (N, C), C its own.
      tasks: of each model; equal for models of one label space.
      shared: what is computed of the seeds alone is kept here; probe sets of the same seeds may share it.
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
            raise InvalidInputError("Seeds, partners and tasks are as many as models", got=got, where="Reactions")
        self._seeds, self._partners, self.tasks = seeds, partners, list(tasks)
        self._kept: dict[Hashable, np.ndarray] = {}
        self._shared = {} if shared is None else shared

    def comparable(self, view: View, one: int) -> Bool[np.ndarray, " m"]:
        """Which models this view can hold against one of them."""
        return np.array([not view.same_labels or task == self.tasks[one] for task in self.tasks])

    def gram(self, view: View, one: int) -> Float[np.ndarray, "k k"]:
        """Inner products of the comparable models' vectors, made once."""

        def make() -> np.ndarray:
            rows = np.flatnonzero(self.comparable(view, one))
            return gram(np.stack([view.features(self._seeds[i], self._partners[i]) for i in rows.tolist()]))

        return self.kept(view, make, self.tasks[one] if view.same_labels else None)

    def kept(self, view: View, make: Callable[[], np.ndarray], *what: Hashable) -> np.ndarray:
        """`make()`, made once for each view and `what`; once for all probe sets if the view looks at seeds only."""
        store, key = self._kept if view.partners else self._shared, (view.name, *what)
        if key not in store:
            store[key] = make()
        return store[key]


def relatedness(
    reactions: Reactions, ones: Sequence[int], others: Sequence[int], references: Bool[np.ndarray, " m"]
) -> dict[str, Float[np.ndarray, "i k"]]:
    """How related some models are to others, by all views.

    Args:
      reactions: of all models.
      ones: numbers of the models in question, such as an owner's.
      others: numbers of the models they are compared with, references among them if need be: each is left out of its
        own comparison, so that references' scores are what scores of unrelated models look like.
      references: which models are known to be unrelated to the ones. Two or more.
    Returns:
      For each view, and for `related`, a number for each two. A view's is in standard deviations of the similarities
      between the one model and references of the other's task, above their mean; NaN where it cannot compare the two.
      `related` is the fused score (`fused`).
    """
    if references.sum() < 2 or references[list(ones)].any():
        raise InvalidInputError(
            "References are two or more models, and none of those in question",
            got=f"{references.sum()} references",
            where="relatedness",
        )
    found = {}
    for view in VIEWS.values():
        scores = np.full((len(reactions.tasks), len(references)), np.nan)
        for task in dict.fromkeys(reactions.tasks[one] for one in ones):
            mine = [one for one in ones if reactions.tasks[one] == task]
            scores[mine] = reactions.kept(
                view, partial(_scores, reactions, view, mine, references), tuple(mine), references.tobytes()
            )
        found[view.name] = scores[np.ix_(ones, others)]
    return {**found, "related": fused(found)}


def fused(scores: Mapping[str, Float[np.ndarray, "*k"]]) -> Float[np.ndarray, "*k"]:
    """The sum of the two strongest of the views' scores; NaN where fewer than two can compare."""
    known = np.stack([np.where(np.isnan(scores[name]), -np.inf, scores[name]) for name in VIEWS])
    strongest = np.sort(known, axis=0)[-2:].sum(axis=0)
    return np.where(np.isfinite(strongest), strongest, np.nan)


def _scores(
    reactions: Reactions, view: View, ones: Sequence[int], references: Bool[np.ndarray, " m"]
) -> Float[np.ndarray, "i m"]:
    """Of models of one task, with all models."""
    rows = np.flatnonzero(reactions.comparable(view, ones[0]))
    pool = references[rows]
    scores = np.full((len(ones), len(references)), np.nan)
    if pool.sum() < 2:
        return scores
    tasks = [reactions.tasks[row] for row in rows]
    residuals = Residuals(reactions.gram(view, ones[0]), tasks, pool)
    near = residuals.similarities([int(np.flatnonzero(rows == one)[0]) for one in ones])
    near = np.arctanh(np.clip(near, -_MOST, _MOST))
    for task in set(tasks):
        mine = np.array([name == task for name in tasks])
        cohort = near[:, pool & mine if (pool & mine).sum() >= _FEWEST else pool]
        standard = (near[:, mine] - cohort.mean(axis=1, keepdims=True)) / (cohort.std(axis=1, keepdims=True) + 1e-3)
        scores[:, rows[mine]] = standard
    return scores
