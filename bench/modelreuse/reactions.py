"""Runs the models of a zoo: models of one graph share one compilation, and every core is kept busy."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

import modeldiff_jax as md
from modeldiff_jax.models.family import united
from modeldiff_jax.models.model import Model
from modeldiff_jax.probes.hill_climbing import search
from modeldiff_jax.probes.pgd import Direction, pgd
from modeldiff_jax.runtime.compilation import Program
from modeldiff_jax.runtime.threads import each
from modeldiff_jax.types import Apply, Params

ROUNDS = 10
"""Rounds of hill climbing, of two queries for each pair."""
_ROWS = 256
"""Images in one call: the same number in all calls, so that a family compiles once."""


class Reactor:
    """Models by name, from their files.

    Args:
      files: name -> ONNX file.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        names = list(files)
        loaded = each(lambda name: md.load(files[name]), names)
        self.models: dict[str, Model] = dict(zip(names, united(loaded), strict=True))

    def logits(self, names: Iterable[str], x: Float[np.ndarray, "n ..."]) -> dict[str, Float[np.ndarray, "n c"]]:
        """Returns the outputs of each model on normalised images."""
        names = list(names)
        n = len(x)
        rows = min(_ROWS, n)
        starts = range(0, n, rows)
        chunks = [x[start : start + rows] for start in starts]
        chunks[-1] = np.pad(chunks[-1], [(0, rows - len(chunks[-1])), *[(0, 0)] * (x.ndim - 1)], mode="edge")
        for model in {self.models[name].apply: self.models[name] for name in names}.values():
            _outputs.lower(model.apply, model.params, chunks[0]).compile()  # once, not in each thread
        calls = [(name, chunk) for name in names for chunk in chunks]

        def run(call: tuple[str, np.ndarray]) -> np.ndarray:
            model = self.models[call[0]]
            return np.asarray(_outputs(model.apply, model.params, call[1]))

        parts = each(run, calls) if jax.default_backend() == "cpu" else list(map(run, calls))
        return {
            name: np.concatenate(parts[i * len(chunks) : (i + 1) * len(chunks)])[:n] for i, name in enumerate(names)
        }

    def attack(
        self,
        name: str,
        seeds: Float[np.ndarray, "n ..."],
        *,
        eps: float = 0.06,
        n_steps: int = 50,
        direction: Direction = "away",
        key: int = 0,
    ) -> Float[np.ndarray, "n ..."]:
        """Makes partners of normalised seeds on a model, as in the authors' notebook.

        Args:
          name: the model.
          seeds: normalised images.
          eps: radius, in normalised units.
          n_steps, direction, key: see `modeldiff_jax.probes.pgd.pgd`.
        """
        model = self.models[name]
        low, high = float(seeds.min()), float(seeds.max())
        radius = eps / (high - low)
        return np.asarray(
            pgd(
                _reactions(model.apply),
                model.params,
                seeds,
                key=jax.random.key(key),
                direction=direction,
                eps=radius,
                step=radius / 6,
                n_steps=n_steps,
                low=low,
                high=high,
            )
        )

    def search(
        self, name: str, seeds: Float[np.ndarray, "n ..."], key: int = 0
    ) -> tuple[Float[np.ndarray, "n ..."], int]:
        """Returns partners of normalised seeds, found by queries alone, and the number of queries."""
        start = self.logits([name], seeds)[name]
        partners, n_queries = search(
            lambda x: self.logits([name], np.asarray(x, np.float32))[name],
            seeds,
            rng=np.random.default_rng([key, zlib.crc32(name.encode())]),
            budget=2 * ROUNDS * len(seeds),
            low=float(seeds.min()),
            high=float(seeds.max()),
            seed_reactions=start,
        )
        return np.asarray(partners, np.float32), n_queries + len(seeds)


_by_program: dict[Apply, Callable[[Params, Any], Any]] = {}


def _reactions(apply: Apply) -> Callable[[Params, Any], Any]:
    """Returns one function for each program, so that attacks on its models share a compilation."""
    if apply not in _by_program:
        _by_program[apply] = partial(_first_output, apply)
    return _by_program[apply]


def _first_output(apply: Apply, params: Params, x: Any) -> Any:
    return jnp.asarray(jax.tree.leaves(apply(params, x))[0])


@partial(Program, static_argnums=0)
def _outputs(apply: Apply, params: Params, x: Float[Any, "n ..."]) -> Float[jax.Array, "n c"]:
    return _first_output(apply, params, x).astype(jnp.float32)


def accuracies(
    reactor: Reactor, sets: Mapping[str, tuple[np.ndarray, np.ndarray]], models: Sequence[tuple[str, str]]
) -> dict[str, float]:
    """Returns the share of test images that are classified correctly, for each (model, dataset)."""
    accuracy = {}
    for dataset in {dataset for _, dataset in models}:
        x, y = sets[dataset]
        logits = reactor.logits([name for name, tested_on in models if tested_on == dataset], x)
        accuracy |= {name: float(np.mean(rows.argmax(1) == y)) for name, rows in logits.items()}
    return accuracy
