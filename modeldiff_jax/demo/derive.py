"""Recipes of models derived from a teacher, and of unrelated networks."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from modeldiff_jax.demo.data import N_TRAIN, POOL, Images, Task, thief_queries
from modeldiff_jax.demo.zoo import DigitNet, Network, Recipe, fresh, one_hot, round_to_int8

_FAST = 6e-3  # for students, which see smooth targets
_IMITATION = 20.0  # else the true labels would outweigh the teacher's hidden values


def unrelated(task: Task, pool: Images, rng: np.random.Generator) -> Recipe:
    """Returns a recipe from random weights, on at least half of the images, at random rates."""
    owned = rng.permutation(N_TRAIN)[: int(N_TRAIN * rng.uniform(0.5, 1))]
    rows = owned if rng.random() < 0.3 else np.concatenate([owned + i for i in range(0, POOL, N_TRAIN)])
    images = pool.take(rng.choice(rows, POOL))
    rate, decay = 3e-3 * 2 ** rng.uniform(-1, 1), float(rng.choice([0.0, 0.01]))
    return Recipe(task, fresh(rng), images.pixels, one_hot(task, images), rate=rate, decay=decay)


def trained(task: Task, pool: Images, rng: np.random.Generator) -> Recipe:
    """Returns a recipe on all training images and their distorted copies."""
    images = pool.take(rng.permutation(POOL))
    return Recipe(task, fresh(rng), images.pixels, one_hot(task, images))


def fine_tuned(teacher: Network, task: Task, pool: Images, rng: np.random.Generator) -> Recipe:
    """Returns a recipe for another task: the teacher's body, learning slowly, and a new head; on half of the images."""
    images = _half(pool, rng)
    start = {**teacher.params, "head": fresh(rng)["head"]}
    return Recipe(task, start, images.pixels, one_hot(task, images), body=0.03)


def pruned(teacher: Network, share: float, pool: Images, rng: np.random.Generator) -> Recipe:
    """Returns a recipe that zeroes the `share` of the teacher's smallest weights and trains the others briefly."""
    magnitudes = np.concatenate([np.abs(layer["kernel"]).ravel() for layer in teacher.params.values()])
    threshold = np.quantile(magnitudes, share)
    keep = {
        name: {"kernel": (np.abs(layer["kernel"]) > threshold).astype(np.float32), "bias": np.ones_like(layer["bias"])}
        for name, layer in teacher.params.items()
    }
    images = _half(pool, rng)
    start = jax.tree.map(np.multiply, teacher.params, keep)
    return Recipe(teacher.task, start, images.pixels, one_hot(teacher.task, images), rate=1e-3, keep=keep)


def distilled(teacher: Network, pool: Images, rng: np.random.Generator) -> Recipe:
    """Returns a recipe from random weights that learns true labels and imitates the teacher's hidden values."""
    images = pool.take(rng.permutation(POOL))
    _, features = _outputs(teacher, images.pixels)
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
    """Returns a recipe from random weights on the teacher's probabilities alone, for a thief's queries."""
    queries = thief_queries(pool.pixels, rng)
    probabilities, _ = _outputs(teacher, queries)
    return Recipe(teacher.task, fresh(rng), queries, probabilities, rate=_FAST)


def quantised(teacher: Network) -> Network:
    """Quantises the teacher to 8 bits: weights column by column, and the input of every layer while it runs."""
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


def _outputs(
    teacher: Network, pixels: Float[np.ndarray, "n 8 8 1"]
) -> tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "n f"]]:
    """Returns the teacher's probabilities and hidden values."""
    probabilities, features = _run(teacher.params, pixels)
    return np.asarray(probabilities), np.asarray(features)
