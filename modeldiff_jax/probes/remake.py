"""Makes probe sets again by their recipe, which is in their `origin`: method, settings, key."""

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
"""Largest mean deviation of partners made again, as a share of the distance from seed to partner.

On one machine they do not deviate. Elsewhere every step follows the sign of a gradient that is rounded differently: on
networks of 80 thousand parameters, weights changed by a relative 1e-7 move partners by 0.00 to 0.06 of that distance,
by 1e-6 0.03 to 0.2, and single partners by 0.6. Partners that were drawn at random deviate by 6 to 8.
"""
_SETTINGS = {"pgd": ("eps", "direction", "step"), "search": ("eps",)}


def remake_probes(
    probes: ProbeSet, target: Model | Adapter, *, seeds: Any = None, key: int | None = None, limits: Limits = DEFAULT
) -> ProbeSet:
    """Makes a probe set again by the recipe of another, from a model, seeds and a key.

    Args:
      probes: the set with the recipe; its pairs are not read, only counted.
      target: the model that it is said to be made on; adapted where it needs a hint.
      seeds: the source that they are said to be drawn from, as `make_probes` takes it; None for the built-in pack.
      key: None for the one in the recipe.
      limits: limits on seed files.
    Raises:
      InvalidInputError: the origin has no complete recipe, or one that cannot be followed.
    """
    recipe = probes.origin
    try:
        method = recipe["method"]
        settings = {name: recipe[name] for name in _SETTINGS[method]}
        settings |= {"n_steps": recipe["steps"], "key": recipe["key"] if key is None else key}
    except (KeyError, TypeError) as error:
        raise InvalidInputError(
            "A probe set that can be made again has a recipe in its origin",
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
    """Returns whether two sets have the same seeds and, but for a device's rounding, the same partners.

    Args:
      a, b: sets of one space, metric and length, else they are not alike.
      tolerance: largest difference of partners, as a share of their distance from the seed, on average over pairs; for
        tokens the number that differ, as a share of those substituted.
    """
    if (a.space, a.metric, len(a)) != (b.space, b.metric, len(b)):
        return False
    if not np.allclose(a.seeds, b.seeds, rtol=0, atol=1e-6 * (a.space.high - a.space.low)):
        return False
    deviation = _difference(a.partners, b.partners) / np.maximum(_difference(b.seeds, b.partners), 1e-12)
    return bool(deviation.mean() <= tolerance)


def _difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the mean absolute difference of each pair, or the share of tokens that differ."""
    differing = x != y if np.issubdtype(x.dtype, np.integer) else np.abs(x.astype(np.float64) - y)
    return np.asarray(differing.reshape(len(x), -1).mean(axis=1))
