"""Forged claims that an innocent model was reused: by crafted pairs, by picked seeds, by trying many keys.

The accuser owns a model, and has the innocent one before committing to anything. Scores and p-values are computed as
for honest claims: pairs are made on the owner's model, and references are unrelated models of its label space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

import modeldiff_jax as md
from bench.modelreuse.likeness import Term, likeness
from bench.modelreuse.methods.decision_distance import cosine
from bench.modelreuse.study import EPS, Study
from modeldiff_jax.detection.conformal import conformal_p_value
from modeldiff_jax.evidence.relatedness import ReactionTable, relatedness
from modeldiff_jax.kernels import paired_distances
from modeldiff_jax.models.inputs.probed_input import InputHint
from modeldiff_jax.models.inputs.space import generic_space
from modeldiff_jax.probes.adapt import Adapter, adapt
from modeldiff_jax.probes.remake import TOLERANCE
from modeldiff_jax.runtime.compilation import Program
from modeldiff_jax.types import Apply

METHODS: dict[str, Term] = {"modeldiff": "ddv", "ours": "evidence"}
"""Methods, and the similarity that an adversary changes to mislead each."""
ALPHA = 0.05
_REACH = 0.1
"""Largest move of crafted seeds and partners, as a share of the value range: the radius of `make_probes`."""
_STEPS = 10
"""Steps of all attacks: on small networks more do no better."""


def scores(
    target: Float[np.ndarray, "2 n c"], others: Sequence[Float[np.ndarray, "2 n _"]], references: Sequence[int]
) -> dict[str, Float[np.ndarray, " k"]]:
    """Returns how related a target is to other models of its label space, by each method.

    Args:
      target, others: logits for seeds and for partners.
      references: indices of those among the others that are known to be unrelated.
    """
    models = [target, *others]
    table = ReactionTable([seeds for seeds, _ in models], [partners for _, partners in models], [0] * len(models))
    is_reference = np.isin(np.arange(len(models)), np.asarray(references) + 1)
    ddv = np.asarray(paired_distances(*target))
    return {
        "modeldiff": np.array([cosine(ddv, np.asarray(paired_distances(*other))) for other in others]),
        "ours": relatedness(table, [0], range(1, len(models)), is_reference)["related"][0],
    }


class Trial:
    """A target of a zoo, the models unrelated to it, and probe sets to compare them under.

    Args:
      study: study of the zoo.
      owner: name of the target: the model that an accuser claims was reused.
    """

    def __init__(self, study: Study, owner: str) -> None:
        self.study, self.owner, entry = study, owner, study.entry(owner)
        self.pool, _ = study.images(entry.dataset, "train")
        low, high = float(self.pool.min()), float(self.pool.max())
        space = generic_space(self.pool.shape[1:], low, high)
        self.target: Adapter = adapt(study.reactor.models[owner], space, InputHint(kind="generic"))
        self.eps = EPS / (high - low)
        others = [name for name in study.names if study.entry(name).dataset == entry.dataset and name != owner]
        self.unrelated = [name for name in others if study.entry(name).root != entry.root]
        self.relatives = [name for name in others if study.entry(name).root == entry.root]

    def suspects(self) -> list[str]:
        """Returns one innocent model of each other root."""
        return list({self.study.entry(name).root: name for name in reversed(self.unrelated)}.values())

    @cached_property
    def pool_reactions(self) -> dict[str, Float[np.ndarray, "2 n c"]]:
        """Reactions of the target and unrelated models to honest pairs of the whole pool."""
        return self.reactions(self.probes(n_pairs=len(self.pool)), [self.owner, *self.unrelated])

    def probes(self, seeds: np.ndarray | None = None, key: int = 0, n_pairs: int | None = None) -> md.ProbeSet:
        """Makes an honest probe set."""
        pool = self.pool if seeds is None else seeds
        n = min(n_pairs or self.study.n_pairs, len(pool))
        settings = {"eps": self.eps, "direction": "away", "n_steps": _STEPS}
        return md.make_probes(self.target, seeds=pool, n_pairs=n, key=key, **settings)

    def reactions(self, probes: md.ProbeSet, names: Sequence[str]) -> dict[str, Float[np.ndarray, "2 n c"]]:
        """Returns the models' logits for seeds and for partners."""
        n = len(probes)
        logits = self.study.reactor.logits(names, np.concatenate([probes.seeds, probes.partners]))
        return {name: np.stack([rows[:n], rows[n:]]) for name, rows in logits.items()}

    def references(self, suspect: str) -> list[str]:
        """Returns the models unrelated to the target that are no relatives of the suspect."""
        root = self.study.entry(suspect).root
        return [name for name in self.unrelated if self.study.entry(name).root != root]

    def p_values(self, probes: md.ProbeSet, suspect: str) -> dict[str, float]:
        """Returns the p-values of the claim that the suspect was made from the target, by method."""
        references = self.references(suspect)
        reactions = self.reactions(probes, [self.owner, suspect, *references])
        others = [reactions[name] for name in (suspect, *references)]
        by_method = scores(reactions[self.owner], others, range(1, len(others)))
        return {method: conformal_p_value(values[0], values[1:].tolist()) for method, values in by_method.items()}


def craft_pairs(trial: Trial, honest: md.ProbeSet, suspect: str, term: Term, hidden: bool = False) -> md.ProbeSet:
    """Returns pairs moved by gradients until target and suspect have similar outputs, unlike unrelated models.

    Seeds and partners are moved; if `hidden`, the partners alone, and by no more than `md.verify_commitment` tolerates.
    """
    models = [trial.study.reactor.models[name] for name in (trial.owner, suspect)]
    unrelated = np.stack(list(trial.reactions(honest, trial.references(suspect)).values()))
    first = np.stack([honest.seeds, honest.partners])
    if hidden:
        distance = np.abs(honest.partners - honest.seeds).mean(axis=tuple(range(1, honest.seeds.ndim)), keepdims=True)
        reach = np.stack([np.zeros_like(distance), 0.99 * TOLERANCE * distance])
    else:
        reach = np.array(_REACH * (honest.space.high - honest.space.low))
    x = first
    applies, params = tuple(m.apply for m in models), tuple(m.params for m in models)
    for _ in range(_STEPS):
        gradient = np.asarray(_gradient(applies, term, params, x, unrelated))
        x = np.clip(x + 2.5 * reach / _STEPS * np.sign(gradient), first - reach, first + reach)
        x = np.clip(x, honest.space.low, honest.space.high).astype(np.float32)
    return replace(honest, seeds=x[0], partners=x[1])


def pick_seeds(trial: Trial, suspect: str, term: Term) -> np.ndarray:
    """Returns the seeds of the pool, one for each pair, on whose honest pairs target and suspect agree most."""
    models = [trial.pool_reactions[name] for name in (trial.owner, suspect, *trial.references(suspect))]
    distances = [np.log(np.asarray(paired_distances(*model)) + 1e-4) for model in models]
    if term == "ddv":
        agreement = -np.abs(distances[0] - distances[1])
    else:
        mean_distances = np.mean(distances[2:], axis=0)
        logits = [model - model.mean(-1, keepdims=True) for model in models]
        mean_logits = np.mean(logits[2:], axis=0)
        agreement = _standardised((distances[0] - mean_distances) * (distances[1] - mean_distances))
        agreement += _standardised(((logits[0] - mean_logits) * (logits[1] - mean_logits)).sum((0, 2)))
    # where all seeds are used they keep their order, so that rows of the reactions are rows of the pool
    return trial.pool[np.sort(np.argsort(-agreement)[: trial.study.n_pairs])]


def _standardised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / (x.std() + 1e-12)


@partial(Program, static_argnums=(0, 1))
def _gradient(applies: tuple[Apply, Apply], term: Term, params: tuple[Any, Any], x: Any, unrelated: Any) -> Any:
    def total(x: Any) -> Any:
        rows = x.reshape(-1, *x.shape[2:])
        one, other = (
            jnp.asarray(jax.tree.leaves(apply(values, rows))[0]).reshape(2, x.shape[1], -1)
            for apply, values in zip(applies, params, strict=True)
        )
        return likeness(term, one, other, unrelated).sum()

    return jax.grad(total)(x)


def claims(trial: Trial) -> list[dict[str, Any]]:
    """Returns honest and forged claims against one innocent model of each other root.

    Returns:
      Rows of `owner`, `suspect`, `method`, `how`, `p`, and `accepted`: whether `md.verify_commitment` accepts the
      probe set as made on the target, from the whole pool of seeds or, for crafted pairs, from their seeds.
    """
    honest, rows = trial.probes(), []
    honest_accepted = _accepted(trial, honest, trial.pool)
    for suspect in trial.suspects():
        honest_p = trial.p_values(honest, suspect)
        for method, term in METHODS.items():
            crafted, nudged = (craft_pairs(trial, honest, suspect, term, hidden) for hidden in (False, True))
            picked = trial.probes(pick_seeds(trial, suspect, term))
            outcomes = {
                "honest": (honest_p, honest_accepted),
                "crafted pairs": (trial.p_values(crafted, suspect), _accepted(trial, crafted, crafted.seeds)),
                "nudged partners": (trial.p_values(nudged, suspect), _accepted(trial, nudged, trial.pool)),
                "picked seeds": (trial.p_values(picked, suspect), _accepted(trial, picked, trial.pool)),
            }
            claim = {"owner": trial.owner, "suspect": suspect, "method": method}
            rows += [claim | {"how": how, "p": p[method], "accepted": ok} for how, (p, ok) in outcomes.items()]
    return rows


def _accepted(trial: Trial, probes: md.ProbeSet, seeds: np.ndarray) -> bool:
    commitment = md.commit(probes, trial.target.model.origin.content_sha256)
    return md.verify_commitment(commitment.digest, commitment.nonce, probes, target=trial.target, seeds=seeds)


def scores_by_key(trial: Trial, keys: int) -> dict[str, dict[str, np.ndarray]]:
    """Returns scores under pairs of many keys.

    Returns:
      For each method the scores of `unrelated` models, (keys, R), and of `relatives`, (keys, K).
    """
    names, n = [*trial.unrelated, *trial.relatives], len(trial.unrelated)
    by_method: dict[str, dict[str, list[np.ndarray]]] = {m: {"unrelated": [], "relatives": []} for m in METHODS}
    for key in range(keys):
        reactions = trial.reactions(trial.probes(key=key), [trial.owner, *names])
        others = [reactions[name] for name in names]
        for method, values in scores(reactions[trial.owner], others, range(n)).items():
            by_method[method]["unrelated"].append(values[:n])
            by_method[method]["relatives"].append(values[n:])
    return {m: {who: np.stack(rows) for who, rows in groups.items()} for m, groups in by_method.items()}


def accusation_rates(
    unrelated: Float[np.ndarray, "k r"], relatives: Float[np.ndarray, "k s"]
) -> dict[str, tuple[float, float]]:
    """Returns the shares of innocent and of derived models that are called reused, by the use of k keys' scores.

    `one` uses one key; `best` the smallest p-value, as a dishonest accuser does; `bonferroni` that p-value times the
    number of keys; `same` and `mean` the greatest and the mean standardised score over all keys, which are declared, of
    the suspect as of the references.
    """
    keys = len(unrelated)
    mean, deviation = unrelated.mean(1, keepdims=True), unrelated.std(1, keepdims=True) + 1e-12
    p = [_p_values(row, relatives[i]) for i, row in enumerate(unrelated)]
    best = [np.min([of_key[side] for of_key in p], axis=0) for side in (0, 1)]
    innocent, derived = (unrelated - mean) / deviation, (relatives - mean) / deviation
    p_values = {
        "one": p[0],
        "best": best,
        "bonferroni": [keys * values for values in best],
        "same": _p_values(innocent.max(0), derived.max(0)),
        "mean": _p_values(innocent.mean(0), derived.mean(0)),
    }
    return {how: (float(np.mean(a <= ALPHA)), float(np.mean(b <= ALPHA))) for how, (a, b) in p_values.items()}


def _p_values(unrelated: Float[np.ndarray, " r"], relatives: Float[np.ndarray, " s"]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the p-value of each unrelated model among the others, and of each relative among the unrelated ones."""
    innocent = [conformal_p_value(score, np.delete(unrelated, i).tolist()) for i, score in enumerate(unrelated)]
    return np.array(innocent), np.array([conformal_p_value(score, unrelated.tolist()) for score in relatives])
