"""What is made of a teacher, and networks that have nothing to do with it: one recipe each."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from modeldiff_jax.demo.data import N_TRAIN, POOL, Images, Task, thiefs_queries
from modeldiff_jax.demo.zoo import DigitNet, Network, Recipe, fresh, one_hot, round_to_int8

_FAST = 6e-3  # for students, which see smooth targets
_IMITATION = 20.0  # the true labels would else outweigh the teacher's hidden values


def unrelated(task: Task, pool: Images, rng: np.random.Generator) -> Recipe:
    """Its own random weights, its own half or more of the images, with or without shaken copies, its own rates."""
    owned = rng.permutation(N_TRAIN)[: int(N_TRAIN * rng.uniform(0.5, 1))]
    rows = owned if rng.random() < 0.3 else np.concatenate([owned + i for i in range(0, POOL, N_TRAIN)])
    images = pool.take(rng.choice(rows, POOL))
    rate, decay = 3e-3 * 2 ** rng.uniform(-1, 1), float(rng.choice([0.0, 0.01]))
    return Recipe(task, fresh(rng), images.pixels, one_hot(task, images), rate=rate, decay=decay)


def trained(task: Task, pool: Images, rng: np.random.Generator) -> Recipe:
    """All training images and their shaken copies."""
    images = pool.take(rng.permutation(POOL))
    return Recipe(task, fresh(rng), images.pixels, one_hot(task, images))


def fine_tuned(teacher: Network, task: Task, pool: Images, rng: np.random.Generator) -> Recipe:
    """The teacher's body under a new head for another task, on half of the images, the body learning slowly."""
    images = _half(pool, rng)
    start = {**teacher.params, "head": fresh(rng)["head"]}
    return Recipe(task, start, images.pixels, one_hot(task, images), body=0.03)


def pruned(teacher: Network, share: float, pool: Images, rng: np.random.Generator) -> Recipe:
    """The teacher without the `share` of its weights of least magnitude over all layers, trained on a little."""
    magnitudes = np.concatenate([np.abs(layer["kernel"]).ravel() for layer in teacher.params.values()])
    bound = np.quantile(magnitudes, share)
    keep = {
        name: {"kernel": (np.abs(layer["kernel"]) > bound).astype(np.float32), "bias": np.ones_like(layer["bias"])}
        for name, layer in teacher.params.items()
    }
    images = _half(pool, rng)
    start = jax.tree.map(np.multiply, teacher.params, keep)
    return Recipe(teacher.task, start, images.pixels, one_hot(teacher.task, images), rate=1e-3, keep=keep)


def distilled(teacher: Network, pool: Images, rng: np.random.Generator) -> Recipe:
    """Fresh weights that learn the true labels and imitate the teacher's hidden values."""
    images = pool.take(rng.permutation(POOL))
    _, features = _answers(teacher, images.pixels)
    return Recipe(
        teacher.task,
        fresh(rng),
        images.pixels,
        one_hot(teacher.task, images),
        features=features,
        imitation=_IMITATION / float(features.var()),
        rate=_FAST,
    )


def stolen(teacher: Network, pool: Images, rng: np.random.Generator) -> Recipe:
    """Fresh weights that learn from the teacher's probabilities alone, on a thief's queries; no true label is used."""
    queries = thiefs_queries(pool.pixels, rng)
    probabilities, _ = _answers(teacher, queries)
    return Recipe(teacher.task, fresh(rng), queries, probabilities, rate=_FAST)


def quantised(teacher: Network) -> Network:
    """The teacher in 8-bit integers: weights column by column, and the input of every layer as it runs."""
    params = {
        name: {"kernel": round_to_int8(layer["kernel"].T, np).T, "bias": layer["bias"]}
        for name, layer in teacher.params.items()
    }
    return Network(teacher.task, params, int8=True)


def _half(pool: Images, rng: np.random.Generator) -> Images:
    owned = rng.permutation(N_TRAIN)[: N_TRAIN // 2]
    return pool.take(rng.choice(np.concatenate([owned + i for i in range(0, POOL, N_TRAIN)]), POOL))


@jax.jit
def _run(params: Any, pixels: Any) -> Any:
    logits, features = DigitNet().apply({"params": params}, pixels, method="with_features")
    return jax.nn.softmax(logits), features


def _answers(
    teacher: Network, pixels: Float[np.ndarray, "n 8 8 1"]
) -> tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "n f"]]:
    """The teacher's probabilities and hidden values."""
    probabilities, features = _run(teacher.params, pixels)
    return np.asarray(probabilities), np.asarray(features)
