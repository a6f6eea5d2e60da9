"""A thief who knows the method: fine-tunes a stolen copy until its outputs are no longer similar to its victim's.

Beside the labels of images of his own he minimises, times a weight, how alike the copy and the victim answer probe
pairs. `ddv` repels what the paper looks at: the cosine similarity of decision distance vectors. `evidence` repels
every view of the evidence; see `likeness.py`. Who is no more like the victim than a stranger is left in peace.
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
"""As the zoo's pruned models are tuned with."""


@dataclass(frozen=True)
class Pairs:
    """Probe pairs on which a thief makes a copy unlike its victim.

    Attributes:
      seeds, partners: (N, 32, 32, 3) normalised.
      victim: (2, N, C) its answers to seeds and to partners.
      strangers: (R, 2, N, C) those of unrelated models of its task.
    """

    seeds: Float[np.ndarray, "n 32 32 3"]
    partners: Float[np.ndarray, "n 32 32 3"]
    victim: Float[np.ndarray, "2 n c"]
    strangers: Float[np.ndarray, "r 2 n c"]


@dataclass(frozen=True)
class Theft:
    """One copy to be made unlike its victim.

    Attributes:
      arch, classes, start: the stolen network.
      x, y: the thief's own images, in 0..255, and their labels.
      pairs: what he repels it on.
      term: how.
      weight: of the term; 0 only fine-tunes.
      steps: batches of `BATCH` images and as many pairs.
      seed: of their order.
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
    """The copies' variables."""
    for kind in {(t.arch, t.classes, t.term): t for t in thefts}.values():
        variables = kind.start
        moments = optax.scale_by_adam().init(variables["params"])
        _step.lower(kind.arch, kind.term, variables, moments, *_batch(kind, 0)).compile()  # once, not in each thread
    return each(_one, thefts)


def answers(
    arch: str, classes: int, variables: Variables, x: Float[np.ndarray, "n 32 32 3"]
) -> Float[np.ndarray, "n c"]:
    """Logits of a network as it is used, not trained."""
    return np.asarray(_answers(arch, classes, variables, x))


def _one(theft: Theft) -> Variables:
    variables, moments = theft.start, optax.scale_by_adam().init(theft.start["params"])
    for i in range(theft.steps):
        variables, moments = _step(theft.arch, theft.term, variables, moments, *_batch(theft, i))
    return jax.device_get(variables)


def _batch(theft: Theft, i: int) -> tuple[Any, ...]:
    rng = np.random.default_rng([theft.seed, i])
    rows = rng.integers(0, len(theft.x), BATCH)
    pairs = theft.pairs
    some = rng.permutation(len(pairs.seeds))[:BATCH]
    rate = _RATE * 0.5 * (1 + np.cos(np.pi * i / theft.steps))
    probes = np.concatenate([pairs.seeds[some], pairs.partners[some]])
    known = np.concatenate([pairs.victim[None], pairs.strangers])[:, :, some]
    labels = np.eye(theft.classes, dtype=np.float32)[theft.y[rows]]
    return theft.x[rows], labels, probes, known, np.array([rate, theft.weight], np.float32)


@partial(Program, static_argnums=(0, 1))
def _answers(arch: str, classes: int, variables: Variables, x: Any) -> Any:
    return Network(arch, classes).apply(variables, x)[0]


@partial(Program, static_argnums=(0, 1))
def _step(
    arch: str, term: Term, variables: Any, moments: Any, x: Any, labels: Any, probes: Any, known: Any, numbers: Any
) -> tuple[Variables, Any]:
    """One step of Adam. `known`: the victim's answers to these pairs, then the strangers'."""
    network, (rate, weight) = Network(arch, labels.shape[-1]), numbers

    def loss(params: Any) -> tuple[Any, Any]:
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        (logits, _), changed = network.apply(given, normalised(x), train=True, mutable=["batch_stats"])
        told = network.apply(given, probes)[0].reshape(2, -1, labels.shape[-1])
        task = optax.softmax_cross_entropy(logits, labels).mean()
        repelled = jax.nn.relu(likeness(term, told, known[0], known[1:])).sum()
        return task + weight * repelled, changed["batch_stats"]

    gradients, stats = jax.grad(loss, has_aux=True)(variables["params"])
    moves, moments = optax.scale_by_adam().update(gradients, moments)
    params = jax.tree.map(lambda w, move: w - rate * move, variables["params"], moves)
    return {"params": params, "batch_stats": stats}, moments
