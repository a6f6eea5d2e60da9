"""Makes copies as a thief who knows the method: fine-tunes them until outputs are no longer similar to the victim's.

The loss is that of the labels of the thief's images plus, times a weight, a term: how similar the reactions of copy
and victim to probe pairs are. `ddv` minimises the paper's evidence, the cosine similarity of decision distance vectors.
`evidence` minimises the similarity in every representation; see `likeness.py`. Similarities below 0, those of models
less similar than unrelated ones, do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Float, Int

from bench.modelreuse.data import Images
from bench.modelreuse.likeness import Term, likeness
from bench.modelreuse.networks import Network
from bench.modelreuse.operations import Variables
from bench.modelreuse.training import BATCH, normalised
from modeldiff_jax.runtime.compilation import Program
from modeldiff_jax.runtime.threads import each

_RATE = 2e-3
"""Learning rate, the same as for the zoo's pruned models."""


@dataclass(frozen=True)
class Pairs:
    """Probe pairs on which a thief makes a copy unlike its victim.

    Attributes:
      seeds, partners: (N, 32, 32, 3) normalised.
      victim: (2, N, C) the victim's logits for seeds and for partners.
      unrelated: (R, 2, N, C) the logits of unrelated models of its label space.
    """

    seeds: Float[np.ndarray, "n 32 32 3"]
    partners: Float[np.ndarray, "n 32 32 3"]
    victim: Float[np.ndarray, "2 n c"]
    unrelated: Float[np.ndarray, "r 2 n c"]


@dataclass(frozen=True)
class Theft:
    """One copy to be made unlike its victim.

    Attributes:
      arch, classes, start: the stolen network.
      x, y: the thief's images, in 0..255, and their labels.
      pairs: probe pairs on which similarity is minimised.
      term: the similarity that is minimised.
      weight: weight of the term; 0 only fine-tunes.
      steps: number of batches, each of `BATCH` images and as many pairs.
      seed: random seed of their order.
    """

    arch: str
    classes: int
    start: Variables
    x: Images
    y: Int[np.ndarray, " n"]
    pairs: Pairs
    term: Term
    weight: float
    steps: int
    seed: int


def steal(thefts: Sequence[Theft]) -> list[Variables]:
    """Returns the copies' variables."""
    for kind in {(t.arch, t.classes, t.term): t for t in thefts}.values():
        variables = kind.start
        moments = optax.scale_by_adam().init(variables["params"])
        _step.lower(kind.arch, kind.term, variables, moments, *_batch(kind, 0)).compile()  # once, not in each thread
    return each(_steal_one, thefts)


def logits_of(
    arch: str, classes: int, variables: Variables, x: Float[np.ndarray, "n 32 32 3"]
) -> Float[np.ndarray, "n c"]:
    """Returns the logits of a network in inference mode."""
    return np.asarray(_logits_of(arch, classes, variables, x))


def _steal_one(theft: Theft) -> Variables:
    variables, moments = theft.start, optax.scale_by_adam().init(theft.start["params"])
    for i in range(theft.steps):
        variables, moments = _step(theft.arch, theft.term, variables, moments, *_batch(theft, i))
    return jax.device_get(variables)


def _batch(theft: Theft, i: int) -> tuple[Any, ...]:
    rng = np.random.default_rng([theft.seed, i])
    rows = rng.integers(0, len(theft.x), BATCH)
    pairs = theft.pairs
    chosen = rng.permutation(len(pairs.seeds))[:BATCH]
    rate = _RATE * 0.5 * (1 + np.cos(np.pi * i / theft.steps))
    probes = np.concatenate([pairs.seeds[chosen], pairs.partners[chosen]])
    others = np.concatenate([pairs.victim[None], pairs.unrelated])[:, :, chosen]
    labels = np.eye(theft.classes, dtype=np.float32)[theft.y[rows]]
    return theft.x[rows], labels, probes, others, np.array([rate, theft.weight], np.float32)


@partial(Program, static_argnums=(0, 1))
def _logits_of(arch: str, classes: int, variables: Variables, x: Any) -> Any:
    return Network(arch, classes).apply(variables, x)[0]


@partial(Program, static_argnums=(0, 1))
def _step(
    arch: str, term: Term, variables: Any, moments: Any, x: Any, labels: Any, probes: Any, others: Any, numbers: Any
) -> tuple[Variables, Any]:
    """Takes one step of Adam. `others`: the victim's logits for these pairs, then those of unrelated models."""
    network, (rate, weight) = Network(arch, labels.shape[-1]), numbers

    def loss(params: Any) -> tuple[Any, Any]:
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        (logits, _), changed = network.apply(given, normalised(x), train=True, mutable=["batch_stats"])
        on_probes = network.apply(given, probes)[0].reshape(2, -1, labels.shape[-1])
        task = optax.softmax_cross_entropy(logits, labels).mean()
        similarity = jax.nn.relu(likeness(term, on_probes, others[0], others[1:])).sum()
        return task + weight * similarity, changed["batch_stats"]

    gradients, stats = jax.grad(loss, has_aux=True)(variables["params"])
    moves, moments = optax.scale_by_adam().update(gradients, moments)
    params = jax.tree.map(lambda w, move: w - rate * move, variables["params"], moves)
    return {"params": params, "batch_stats": stats}, moments
