"""Forged claims that an innocent model was reused: by crafted pairs, by picked seeds, by trying many keys.

He owns a model, and has the innocent one in his hands before he commits to anything. Scores and p-values are those an
honest claim would be judged by: pairs on the owner's model, against unrelated models of the same task.
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
"""Methods, and what an adversary works on who is judged by them."""
ALPHA = 0.05
_REACH = 0.1
"""How far a forger moves seeds and partners, as a share of the value range: what `make_probes` allows a partner."""
_STEPS = 10
"""Of all attacks: on small networks as good as more."""


def scores(
    one: Float[np.ndarray, "2 n c"], others: Sequence[Float[np.ndarray, "2 n _"]], references: Sequence[int]
) -> dict[str, Float[np.ndarray, " k"]]:
    """How related one model is to others of its task, by each method.

    Args:
      one, others: logits for seeds and for partners.
      references: which of the others are known to be unrelated.
    """
    told = [one, *others]
    reactions = ReactionTable([t[0] for t in told], [t[1] for t in told], [0] * len(told))
    known = np.isin(np.arange(len(told)), np.asarray(references) + 1)
    own = np.asarray(paired_distances(*one))
    return {
        "modeldiff": np.array([cosine(own, np.asarray(paired_distances(*other))) for other in others]),
        "ours": relatedness(reactions, [0], range(1, len(told)), known)["related"][0],
    }


class Court:
    """An owner's model of a zoo, the models unrelated to it, and pairs to compare them on.

    Args:
      study: of the zoo.
      owner: name of the model that somebody claims was reused.
    """

    def __init__(self, study: Study, owner: str) -> None:
        self.study, self.owner, entry = study, owner, study.entry(owner)
        self.pool, _ = study.images(entry.dataset, "train")
        low, high = float(self.pool.min()), float(self.pool.max())
        space = generic_space(self.pool.shape[1:], low, high)
        self.target: Adapter = adapt(study.reactor.models[owner], space, InputHint(kind="generic"))
        self.eps = EPS / (high - low)
        same = [name for name in study.names if study.entry(name).dataset == entry.dataset and name != owner]
        self.strangers = [name for name in same if study.entry(name).root != entry.root]
        self.relatives = [name for name in same if study.entry(name).root == entry.root]

    def suspects(self) -> list[str]:
        """One innocent model of each other root."""
        return list({self.study.entry(name).root: name for name in reversed(self.strangers)}.values())

    @cached_property
    def told(self) -> dict[str, Float[np.ndarray, "2 n c"]]:
        """Outputs of owner and unrelated models on honest pairs of the whole pool."""
        return self.answers(self.probes(n_pairs=len(self.pool)), [self.owner, *self.strangers])

    def probes(self, seeds: np.ndarray | None = None, key: int = 0, n_pairs: int | None = None) -> md.ProbeSet:
        """An honest probe set."""
        pool = self.pool if seeds is None else seeds
        n = min(n_pairs or self.study.n_pairs, len(pool))
        settings = {"eps": self.eps, "direction": "away", "n_steps": _STEPS}
        return md.make_probes(self.target, seeds=pool, n_pairs=n, key=key, **settings)

    def answers(self, probes: md.ProbeSet, names: Sequence[str]) -> dict[str, Float[np.ndarray, "2 n c"]]:
        """Logits for seeds and for partners."""
        n = len(probes)
        found = self.study.reactor.logits(names, np.concatenate([probes.seeds, probes.partners]))
        return {name: np.stack([told[:n], told[n:]]) for name, told in found.items()}

    def references(self, suspect: str) -> list[str]:
        """Models unrelated to the owner that are no relatives of the suspect."""
        root = self.study.entry(suspect).root
        return [name for name in self.strangers if self.study.entry(name).root != root]

    def p_values(self, probes: md.ProbeSet, suspect: str) -> dict[str, float]:
        """Of the claim that the suspect was made from the owner's model, by method."""
        references = self.references(suspect)
        told = self.answers(probes, [self.owner, suspect, *references])
        others = [told[name] for name in (suspect, *references)]
        found = scores(told[self.owner], others, range(1, len(others)))
        return {method: conformal_p_value(values[0], values[1:].tolist()) for method, values in found.items()}


def crafted(court: Court, honest: md.ProbeSet, suspect: str, term: Term, unseen: bool = False) -> md.ProbeSet:
    """Returns pairs moved by gradients until owner and suspect have similar outputs, unlike unrelated models.

    Seeds and partners are moved; `unseen`, the partners alone, by as little as `md.verify_commitment` must forgive.
    """
    models = [court.study.reactor.models[name] for name in (court.owner, suspect)]
    told = court.answers(honest, court.references(suspect))
    strangers = np.stack(list(told.values()))
    first = np.stack([honest.seeds, honest.partners])
    if unseen:
        way = np.abs(honest.partners - honest.seeds).mean(axis=tuple(range(1, honest.seeds.ndim)), keepdims=True)
        reach = np.stack([np.zeros_like(way), 0.99 * TOLERANCE * way])
    else:
        reach = np.array(_REACH * (honest.space.high - honest.space.low))
    x = first
    applies, params = tuple(m.apply for m in models), tuple(m.params for m in models)
    for _ in range(_STEPS):
        slope = np.asarray(_slope(applies, term, params, x, strangers))
        x = np.clip(x + 2.5 * reach / _STEPS * np.sign(slope), first - reach, first + reach)
        x = np.clip(x, honest.space.low, honest.space.high).astype(np.float32)
    return replace(honest, seeds=x[0], partners=x[1])


def picked(court: Court, suspect: str, term: Term) -> np.ndarray:
    """The seeds of the pool, as many as there shall be pairs, on whose honest pairs owner and suspect agree most."""
    own, other, *rest = (court.told[name] for name in (court.owner, suspect, *court.references(suspect)))
    near = [np.log(np.asarray(paired_distances(*one)) + 1e-4) for one in (own, other, *rest)]
    if term == "ddv":
        gain = -np.abs(near[0] - near[1])
    else:
        common = np.mean(near[2:], axis=0)
        logits = [one - one.mean(-1, keepdims=True) for one in (own, other, *rest)]
        middle = np.mean(logits[2:], axis=0)
        gain = _standard((near[0] - common) * (near[1] - common))
        gain += _standard(((logits[0] - middle) * (logits[1] - middle)).sum((0, 2)))
    # a source all of whose seeds are used keeps its order, so that rows of the answers are rows of the pool
    return court.pool[np.sort(np.argsort(-gain)[: court.study.n_pairs])]


def _standard(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / (x.std() + 1e-12)


@partial(Program, static_argnums=(0, 1))
def _slope(applies: tuple[Apply, Apply], term: Term, params: tuple[Any, Any], x: Any, strangers: Any) -> Any:
    def total(x: Any) -> Any:
        rows = x.reshape(-1, *x.shape[2:])
        one, other = (
            jnp.asarray(jax.tree.leaves(apply(own, rows))[0]).reshape(2, x.shape[1], -1)
            for apply, own in zip(applies, params, strict=True)
        )
        return likeness(term, one, other, strangers).sum()

    return jax.grad(total)(x)


def claims(court: Court) -> list[dict[str, Any]]:
    """Honest and forged claims against one innocent model of each other root.

    Returns:
      Rows of `owner`, `suspect`, `method`, `how`, `p`, and `accepted`: whether `md.verify_commitment` takes the set for
      one that the owner's model makes from the whole pool of seeds or, of crafted pairs, even from those they hold.
    """
    honest, rows = court.probes(), []
    honestly = _accepted(court, honest, court.pool)
    for suspect in court.suspects():
        plain = court.p_values(honest, suspect)
        for method, term in METHODS.items():
            forged, nudged = (crafted(court, honest, suspect, term, unseen) for unseen in (False, True))
            chosen = court.probes(picked(court, suspect, term))
            found = {
                "honest": (plain, honestly),
                "crafted pairs": (court.p_values(forged, suspect), _accepted(court, forged, forged.seeds)),
                "nudged partners": (court.p_values(nudged, suspect), _accepted(court, nudged, court.pool)),
                "picked seeds": (court.p_values(chosen, suspect), _accepted(court, chosen, court.pool)),
            }
            about = {"owner": court.owner, "suspect": suspect, "method": method}
            rows += [about | {"how": how, "p": p[method], "accepted": taken} for how, (p, taken) in found.items()]
    return rows


def _accepted(court: Court, probes: md.ProbeSet, seeds: np.ndarray) -> bool:
    made = md.commit(probes, court.target.model.origin.content_sha256)
    return md.verify_commitment(made.digest, made.nonce, probes, target=court.target, seeds=seeds)


def many_keys(court: Court, keys: int) -> dict[str, dict[str, np.ndarray]]:
    """Scores under pairs of many keys.

    Returns:
      For each method `strangers` (keys, R) and `relatives` (keys, K).
    """
    names = [*court.strangers, *court.relatives]
    found: dict[str, dict[str, list[np.ndarray]]] = {m: {"strangers": [], "relatives": []} for m in METHODS}
    for key in range(keys):
        told = court.answers(court.probes(key=key), [court.owner, *names])
        others = [told[name] for name in names]
        for method, values in scores(told[court.owner], others, range(len(court.strangers))).items():
            found[method]["strangers"].append(values[: len(court.strangers)])
            found[method]["relatives"].append(values[len(court.strangers) :])
    return {m: {who: np.stack(rows) for who, rows in both.items()} for m, both in found.items()}


def accused(strangers: Float[np.ndarray, "k r"], relatives: Float[np.ndarray, "k s"]) -> dict[str, tuple[float, float]]:
    """Shares of innocent and of derived models that are called reused, by what is done with k keys' scores.

    `one` key; the `best` of them, as a dishonest accuser has it; `bonferroni`, the best p-value times their number;
    `same` and `mean`: the best and the mean standardised score, of the suspect as of the references, all keys declared.
    """
    keys = len(strangers)
    middle, spread = strangers.mean(1, keepdims=True), strangers.std(1, keepdims=True) + 1e-12
    p = [_p_values(mine, relatives[i]) for i, mine in enumerate(strangers)]
    best = [np.min([each[side] for each in p], axis=0) for side in (0, 1)]
    innocent, derived = (strangers - middle) / spread, (relatives - middle) / spread
    found = {
        "one": p[0],
        "best": best,
        "bonferroni": [keys * each for each in best],
        "same": _p_values(innocent.max(0), derived.max(0)),
        "mean": _p_values(innocent.mean(0), derived.mean(0)),
    }
    return {how: (float(np.mean(a <= ALPHA)), float(np.mean(b <= ALPHA))) for how, (a, b) in found.items()}


def _p_values(strangers: Float[np.ndarray, " r"], relatives: Float[np.ndarray, " s"]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the p-value of each unrelated model among the others, and of each relative among the unrelated ones."""
    innocent = [conformal_p_value(one, np.delete(strangers, i).tolist()) for i, one in enumerate(strangers)]
    return np.array(innocent), np.array([conformal_p_value(one, strangers.tolist()) for one in relatives])
