"""Makes probe sets: seeds, partners by an attack on a model, and an account of how they were made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.inputs.probed_input import InputHint
from modeldiff_jax.models.inputs.space import ProbeSpace
from modeldiff_jax.models.model import Model
from modeldiff_jax.probes import hill_climbing, pgd
from modeldiff_jax.probes.adapt import Adapter, adapt
from modeldiff_jax.probes.effort import Method, planned
from modeldiff_jax.probes.pgd import Direction
from modeldiff_jax.probes.probe_set import ProbeSet
from modeldiff_jax.probes.seeds import load_seeds
from modeldiff_jax.runtime.settings import on_device


def make_probes(
    model: Model | Adapter,
    *,
    seeds: Any = None,
    n_pairs: int | None = None,
    key: int | jax.Array = 0,
    method: Method | None = None,
    direction: Direction | None = None,
    eps: float | None = None,
    step: float | None = None,
    n_steps: int | None = None,
    query_budget: int | None = None,
    metric: str | None = None,
    space: ProbeSpace | None = None,
    hint: InputHint | None = None,
    beside: Sequence[Adapter] = (),
    limits: Limits = DEFAULT,
) -> ProbeSet:
    """Makes a probe set: seeds, and for each the partner that drives a model's reactions apart.

    Args:
      model: the model to make partners on, or one adapted to a probe space.
      seeds: None for the built-in pack, a pack's name, an array, a `.npy` or `.npz` file, or a folder of images.
      n_pairs: N; None for 100, fewer where there are fewer seeds or the model is too heavy (`effort`).
      key: an int or a JAX key, for the choice of seeds and all random moves; the same one gives the same probes.
      method: `pgd` by gradients (`pgd.pgd`), `search` by queries alone (`hill_climbing.search`); None for `pgd` on a
        model that has gradients.
      direction: direction of `pgd`; None for `toward` when all reactions to the seeds lie in [0, 1], else `away`.
        Probabilities saturate when driven away from the others'; for logits both directions do equally well.
      eps: how far a value may move, as a share of the value range; None for 0.1 with `pgd` and 0.2 with `search`. For
        tokens, which share of them may be substituted; None for 0.05.
      step: length of a step of `pgd`, likewise; None for 2.5 `eps` over all steps.
      n_steps: steps of `pgd`, rounds of `search`; None for 50 and 10, fewer on a heavy model.
      query_budget: most inputs that `search` may run; decides the rounds in place of `n_steps`.
      metric: distance between reactions; None for cosine, or Euclidean where a reaction has one component.
      space: the probes' space; None for that of the model's input.
      hint: what the file does not say of the model's input.
      beside: other models that the pairs are for; where one is heavy there are fewer, unless `n_pairs` is given.
      limits: limits on seed files.
    Returns:
      The probe set. Its `origin` holds all of the above as chosen, the model's identity (`model_sha256`, which is its
      `origin.content_sha256`) and the queries made.
    Raises:
      InvalidInputError: an argument or the seeds cannot be used.
      NotAdaptableError: the model does not take probes of this space.
      NonFiniteError: the model gives NaN or infinity.
    """
    adapter = _adapted(model, space, hint)
    method = method or ("pgd" if adapter.has_gradients else "search")
    _check(adapter, method, n_pairs, n_steps, query_budget)
    queries_before = adapter.queries
    n_seeds, steps = planned([adapter, *beside], method, n_pairs, n_steps, query_budget)
    number = _number(key)
    rng = np.random.default_rng([number, 1])  # apart from the stream that draws the seeds
    chosen, source = load_seeds(seeds, adapter.space, n_seeds, number, at_most=n_pairs is None, limits=limits)
    seed_reactions = adapter.react(chosen)
    search_eps = hill_climbing.EPS_TOKENS if adapter.space.kind == "tokens" else hill_climbing.EPS
    settings: dict[str, Any] = {"eps": eps if eps is not None else pgd.EPS if method == "pgd" else search_eps}
    given: dict[str, Any] = {"low": adapter.space.low, "high": adapter.space.high, "seed_reactions": seed_reactions}
    if method == "pgd":
        settings["direction"] = direction or (
            "toward" if seed_reactions.min() >= 0 and seed_reactions.max() <= 1 else "away"
        )
        settings["step"] = pgd.default_step(settings["eps"], steps) if step is None else step
        start = jax.random.key(on_device(np.uint32(rng.integers(2**31))))
        partners = pgd.pgd(adapter.function, adapter.params, chosen, key=start, n_steps=steps, **settings, **given)
    else:
        budget = 2 * len(chosen) * steps if query_budget is None else query_budget - len(chosen)
        partners, queries = hill_climbing.search(adapter.react, chosen, rng=rng, budget=budget, **settings, **given)
        steps = queries // (2 * len(chosen))
    origin = {
        "method": method,
        **settings,
        "steps": steps,
        "seeds": source,
        "key": number,
        "model": adapter.model.origin.path,
        "model_sha256": adapter.model.origin.content_sha256,
        "queries": adapter.queries - queries_before,
    }
    if metric is None:
        metric = "euclidean" if seed_reactions.shape[1] == 1 else "cosine"
    return ProbeSet(chosen, partners, adapter.space, metric, origin)


def _adapted(model: Model | Adapter, space: ProbeSpace | None, hint: InputHint | None) -> Adapter:
    if not isinstance(model, Adapter):
        return adapt(model, space, hint)
    if (space is not None and space != model.space) or hint is not None:
        raise InvalidInputError(
            "An adapter already has a space and a hint", got="another `space` or a `hint`", where="make_probes"
        )
    return model


def _check(adapter: Adapter, method: str, n_pairs: int | None, n_steps: int | None, query_budget: int | None) -> None:
    where = "make_probes"
    if method not in get_args(Method):
        raise InvalidInputError("`method` is None, `pgd` or `search`", got=repr(method), where=where)
    if method == "pgd" and not adapter.has_gradients:
        raise InvalidInputError(
            "`pgd` needs gradients of the outputs by the probed input",
            got="a model without",
            where=adapter.model.origin.path,
            fix="use method='search'",
        )
    if method == "pgd" and query_budget is not None:
        raise InvalidInputError("`query_budget` is for method='search'", got="method='pgd'", where=where)
    if query_budget is not None and n_steps is not None:
        raise InvalidInputError("Rounds follow from `n_steps` or from `query_budget`", got="both", where=where)
    for name, value, least in (("n_pairs", n_pairs, 2), ("n_steps", n_steps, 1)):
        if value is not None and value < least:
            raise InvalidInputError(f"`{name}` is at least {least}", got=str(value), where=where)


def _number(key: int | jax.Array) -> int:
    """Returns the key as a non-negative integer."""
    if isinstance(key, (int, np.integer)):
        if key < 0:
            raise InvalidInputError("`key` is not negative", got=str(key), where="make_probes")
        return int(key)
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return int.from_bytes(np.asarray(data).astype("<u4").tobytes(), "little")
