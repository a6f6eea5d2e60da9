"""Is a probe set what its own recipe makes? The recipe is in its `origin`: method, settings, key."""

from __future__ import annotations

from typing import Any

import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.model import Model
from modeldiff_jax.probes.adapt import Adapter
from modeldiff_jax.probes.make import make_probes
from modeldiff_jax.probes.probe_set import ProbeSet

TOLERANCE = 0.25
"""Share of their way from seed to partner by which pairs made again may miss, on average.

On one machine they miss by nothing. Elsewhere every step follows the sign of a gradient that is rounded otherwise: on
networks of 80 thousand parameters weights moved by 1e-7 of themselves move partners by 0.00 to 0.06 of their way, by
1e-6 0.03 to 0.2, and single partners by 0.6. Partners that were drawn at random miss by 6 to 8.
"""
_SETTINGS = {"pgd": ("eps", "direction", "step"), "search": ("eps",)}


def remake_probes(
    probes: ProbeSet, target: Model | Adapter, *, seeds: Any = None, key: int | None = None, limits: Limits = DEFAULT
) -> ProbeSet:
    """The probe set that a model, seeds and a key make by the recipe of another.

    Args:
      probes: names the recipe; its pairs are not looked at, only how many they are.
      target: the model that they are said to be made on; adapted where it needs a hint.
      seeds: what they are said to be drawn from, as `make_probes` takes it; None for the built-in pack.
      key: None for the one they are said to be made with.
      limits: bounds on seed files.
    Raises:
      InvalidInputError: the origin names no whole recipe, or one that cannot be followed.
    """
    recipe = probes.origin
    try:
        method = recipe["method"]
        settings = {name: recipe[name] for name in _SETTINGS[method]}
        settings |= {"n_steps": recipe["steps"], "key": recipe["key"] if key is None else key}
    except (KeyError, TypeError) as error:
        raise InvalidInputError(
            "A probe set that can be made again says how it was made",
            got=f"an origin without {error}",
            where="origin",
            fix="use a set from make_probes, or one it saved",
        ) from error
    return make_probes(
        target,
        seeds=seeds,
        n_pairs=len(probes),
        method=method,
        metric=probes.metric,
        space=probes.space,
        limits=limits,
        **settings,
    )


def made_alike(a: ProbeSet, b: ProbeSet, tolerance: float = TOLERANCE) -> bool:
    """Whether two sets have the same seeds and, but for a device's rounding, the same partners.

    Args:
      a, b: of one space, metric and length, else they are not alike.
      tolerance: how far partners may differ, as a share of their way from the seed, on average over pairs; of tokens
        how many, as a share of those substituted.
    """
    if (a.space, a.metric, len(a)) != (b.space, b.metric, len(b)):
        return False
    if not np.allclose(a.seeds, b.seeds, rtol=0, atol=1e-6 * (a.space.high - a.space.low)):
        return False
    missed = _apart(a.partners, b.partners) / np.maximum(_apart(b.seeds, b.partners), 1e-12)
    return bool(missed.mean() <= tolerance)


def _apart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pair by pair, how much differs."""
    differing = x != y if np.issubdtype(x.dtype, np.integer) else np.abs(x.astype(np.float64) - y)
    return np.asarray(differing.reshape(len(x), -1).mean(axis=1))
