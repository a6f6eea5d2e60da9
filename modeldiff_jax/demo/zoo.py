"""The demo's networks and their training: several at a time, all in one compiled program.

Every network is trained with a head of ten outputs; only the first `classes` get gradients, and the others are cut off
afterwards. So all tasks and all kinds of training share one compilation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Bool, Float, Int

from modeldiff_jax.demo.data import POOL, SIDE, Images, Task
from modeldiff_jax.models.flax import from_flax
from modeldiff_jax.models.model import Model
from modeldiff_jax.runtime.settings import default_promotion
from modeldiff_jax.types import TensorSpec

WIDTH, HIDDEN, HEAD = 16, 64, 10
FEATURES = 4 * 2 * WIDTH + HIDDEN
"""Hidden values that a distilled student imitates: both last hidden layers."""
BATCH = 64
TOGETHER = 6
"""Networks trained by one call; smaller groups are filled up with copies."""
Params = dict[str, Any]


class DigitNet(nn.Module):
    """Two 3 x 3 convolutions of stride 2, two dense layers: (n, 8, 8, 1) -> (n, classes) logits.

    A convolution is written as patches times a matrix: under vmap over weights that stays a matrix product, where a
    convolution would become a grouped one, 10 times slower on CPU.

    Attributes:
      classes: number of outputs.
      int8: round the input of every layer to 8 bits, as an integer runtime does.
    """

    classes: int = HEAD
    int8: bool = False

    def setup(self) -> None:
        self.conv1, self.conv2 = nn.Dense(WIDTH), nn.Dense(2 * WIDTH)
        self.dense, self.head = nn.Dense(HIDDEN), nn.Dense(self.classes)

    def __call__(self, x: Float[jax.Array, "n 8 8 1"]) -> Float[jax.Array, "n c"]:
        return self.with_features(x)[0]

    def with_features(self, x: Float[jax.Array, "n 8 8 1"]) -> tuple[Float[jax.Array, "n c"], Float[jax.Array, "n f"]]:
        """Returns logits, and the hidden values of the last two layers."""
        rounded: Callable[[Any], Any] = round_to_int8 if self.int8 else lambda values: values
        x = nn.relu(self.conv1(_patches(rounded(x))))
        x = nn.relu(self.conv2(_patches(rounded(x)))).reshape(x.shape[0], -1)
        hidden = nn.relu(self.dense(rounded(x)))
        return self.head(rounded(hidden)), jnp.concatenate([x, hidden], axis=1)


def _patches(x: Float[jax.Array, "n h w c"]) -> Float[jax.Array, "n h/2 w/2 9*c"]:
    h, w = x.shape[1:3]
    framed = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate([framed[:, i : i + h : 2, j : j + w : 2] for i in range(3) for j in range(3)], axis=-1)


def round_to_int8(values: Any, xp: Any = jnp) -> Any:
    """Rounds values to multiples of 1/127 of the largest magnitude, row by row; `xp` is jax.numpy or numpy."""
    step = xp.maximum(xp.max(xp.abs(values), tuple(range(1, values.ndim)), keepdims=True), 1e-12) / 127
    return xp.round(values / step) * step


@dataclass(frozen=True)
class Network:
    """A trained network and its task."""

    task: Task
    params: Params
    int8: bool = False

    def model(self, name: str) -> Model:
        """Returns the network as a `Model`."""
        head = {key: leaf[..., : self.task.classes] for key, leaf in self.params["head"].items()}
        spec = TensorSpec("image", ("batch", SIDE, SIDE, 1), np.dtype(np.float32))
        variables = {"params": {**self.params, "head": head}}
        return from_flax(DigitNet(self.task.classes, self.int8), variables, spec, name=name)


@dataclass(frozen=True)
class Recipe:
    """A recipe to train one network.

    Attributes:
      task: label space.
      start: initial weights.
      pixels: (POOL, 8, 8, 1), in the order of training.
      targets: (POOL, HEAD) probabilities to learn: true labels, or a teacher's outputs.
      features: (POOL, FEATURES) hidden values to imitate; None for none.
      imitation: weight of their mean squared error.
      rate: highest learning rate; it falls to 0 along a cosine.
      body: the learning rate of all layers but the head, as a share of `rate`.
      decay: weight decay.
      keep: 0 for weights that were pruned, else 1; None where none were.
    """

    task: Task
    start: Params
    pixels: Float[np.ndarray, "p 8 8 1"]
    targets: Float[np.ndarray, "p 10"]
    features: Float[np.ndarray, "p f"] | None = None
    imitation: float = 0.0
    rate: float = 3e-3
    body: float = 1.0
    decay: float = 0.0
    keep: Params | None = None


def one_hot(task: Task, images: Images) -> Float[np.ndarray, "n 10"]:
    """Returns true labels as probabilities."""
    return np.eye(HEAD, dtype=np.float32)[task.labels(images.digits)]


def fresh(rng: np.random.Generator) -> Params:
    """Draws weights of an untrained network: normal, of variance 2 / inputs (He et al., ICCV 2015), biases 0."""
    sizes = {"conv1": (9, WIDTH), "conv2": (9 * WIDTH, 2 * WIDTH), "dense": (8 * WIDTH, HIDDEN), "head": (HIDDEN, HEAD)}
    return {
        name: {"kernel": rng.normal(0, np.sqrt(2 / n), (n, m)).astype(np.float32), "bias": np.zeros(m, np.float32)}
        for name, (n, m) in sizes.items()
    }


def train(recipes: Sequence[Recipe], steps: int, progress: Callable[[int], None] = lambda done: None) -> list[Network]:
    """Trains networks by Adam, `TOGETHER` at a time.

    Args:
      recipes: one for each network.
      steps: batches of `BATCH`.
      progress: called with the number of networks done.
    """
    groups = [recipes[i : i + TOGETHER] for i in range(0, len(recipes), TOGETHER)]
    with default_promotion():  # all groups are dispatched at once, so cores stay busy
        running = [_train(np.int32(steps), *_stack(group)) for group in groups]
    networks: list[Network] = []
    for group, params in zip(groups, running, strict=True):
        parts = _unstack(jax.device_get(params), len(group))
        networks += [Network(recipe.task, part) for recipe, part in zip(group, parts, strict=True)]
        progress(len(networks))
    return networks


def _stack(group: Sequence[Recipe]) -> tuple[Any, ...]:
    full = [*group, *[group[-1]] * (TOGETHER - len(group))]
    blank = np.zeros((POOL, FEATURES), np.float32)
    columns: list[list[Any]] = [
        [recipe.start for recipe in full],
        [jax.tree.map(np.ones_like, r.start) if r.keep is None else r.keep for r in full],
        [recipe.pixels for recipe in full],
        [recipe.targets for recipe in full],
        [blank if recipe.features is None else recipe.features for recipe in full],
        [np.arange(HEAD) < recipe.task.classes for recipe in full],
        [np.array([r.imitation, r.rate, r.body, r.decay], np.float32) for r in full],
    ]
    return tuple(jax.tree.map(lambda *leaves: np.stack(leaves), *column) for column in columns)


def _unstack(tree: Any, n: int) -> list[Any]:
    return [jax.tree.map(lambda leaf: leaf[i], tree) for i in range(n)]  # noqa: B023 mapped at once


@jax.jit
def _train(
    steps: Int[jax.Array, ""],
    start: Any,
    keep: Any,
    pixels: Float[jax.Array, "m p 8 8 1"],
    targets: Float[jax.Array, "m p 10"],
    features: Float[jax.Array, "m p f"],
    counts: Bool[jax.Array, "m 10"],
    numbers: Float[jax.Array, "m 4"],
) -> Any:
    """Returns trained weights, stacked. A group's networks see their samples in the order of their pools."""
    adam = optax.scale_by_adam()

    def loss(params: Any, x: Any, target: Any, features: Any, counts: Any, imitation: Any) -> Any:
        logits, hidden = DigitNet().apply({"params": params}, x, method="with_features")
        log_probabilities = jnp.where(counts, jax.nn.log_softmax(jnp.where(counts, logits, -jnp.inf)), 0)
        return -jnp.mean(jnp.sum(target * log_probabilities, axis=1)) + imitation * jnp.mean((hidden - features) ** 2)

    def update(state: Any, keep: Any, batch: Any, counts: Any, numbers: Any, schedule: Any) -> Any:
        params, moments = state
        imitation, rate, body, decay = numbers
        gradients = jax.grad(loss)(params, *batch, counts, imitation)
        moves, moments = adam.update(gradients, moments)
        moved = {
            layer: jax.tree.map(
                lambda w, d, k, rate=rate * schedule * (1 if layer == "head" else body): (
                    (w - rate * (d + decay * w)) * k
                ),
                params[layer],
                moves[layer],
                keep[layer],
            )
            for layer in params
        }
        return moved, moments

    def step(t: Any, states: Any) -> Any:
        first = t * BATCH % pixels.shape[1]
        batch = [jax.lax.dynamic_slice_in_dim(part, first, BATCH, axis=1) for part in (pixels, targets, features)]
        schedule = 0.5 * (1 + jnp.cos(jnp.pi * t / steps))
        return jax.vmap(update, (0, 0, 0, 0, 0, None))(states, keep, batch, counts, numbers, schedule)

    return jax.lax.fori_loop(0, steps, step, (start, jax.vmap(adam.init)(start)))[0]
