"""A model and seeds -> a probe set: which attack, how much of it, and an account of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.inputs.space import InputHint, ProbeSpace, space_of
from modeldiff_jax.models.model import Model
from modeldiff_jax.probes import hill_climbing, pgd
from modeldiff_jax.probes.adapt import Adapter, adapt
from modeldiff_jax.probes.pgd import Direction
from modeldiff_jax.probes.probe_set import ProbeSet
from modeldiff_jax.probes.seeds import load_seeds
from modeldiff_jax.runtime.settings import on_device

Method: TypeAlias = Literal["pgd", "search"]

N_PAIRS = 100
"""As in the paper, whose own ablation gains nothing from 200 and loses little with 50."""
STEPS: dict[Method, int] = {"pgd": pgd.N_STEPS, "search": 10}
"""Steps of the attack, rounds of the search. On small networks 5 rounds tell children from strangers as 50 do."""
BUDGET = 2e11
"""Floating-point operations' worth of work for one side's partners: 2 to 8 seconds on two CPU cores, each of which
does 10 to 50 GFLOP/s in convolutional networks. Compiling them takes about as long."""
FLOPS_A_VALUE = 10.0
"""What moving a value through memory is worth: on one CPU core about 4e9 values or 4e10 operations pass in a second."""
_FEWER_PAIRS = (N_PAIRS, N_PAIRS // 2, N_PAIRS // 4)
_ENOUGH_STEPS, _FEWEST_STEPS = 3, 2
_FEW_ROUNDS = 5


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
    """Seeds, and for each the partner that drives a model's reactions apart.

    Args:
      model: the model to make partners on, or one adapted to a probe space.
      seeds: None for the built-in pack, a pack's name, an array, a `.npy` or `.npz` file, or a folder of images.
      n_pairs: N; None for 100, fewer where there are fewer seeds or the model is too heavy (`effort`).
      key: an int or a JAX key, for the choice of seeds and all random moves; the same one gives the same probes.
      method: `pgd` by gradients (`pgd.pgd`), `search` by queries alone (`search.search`); None for `pgd` on a model
        that has gradients.
      direction: of `pgd`; None for `toward` when all reactions to the seeds lie in [0, 1], else `away`. Probabilities
        saturate when driven away from the others'; for logits both directions do equally well.
      eps: how far a value may move, as a share of the value range; None for 0.1 with `pgd` and 0.2 with `search`. For
        tokens, which share of them may be substituted; None for 0.05.
      step: length of a step of `pgd`, likewise; None for 2.5 `eps` over all steps.
      n_steps: steps of `pgd`, rounds of `search`; None for 50 and 10, fewer on a heavy model.
      query_budget: most inputs that `search` may ask about; decides the rounds in place of `n_steps`.
      metric: distance between reactions; None for cosine, or Euclidean where a reaction has one component.
      space: where the probes live; None for the model's own space.
      hint: what the model does not say of its own input.
      beside: other models that the pairs are for; where one of them is heavy there are fewer, unless `n_pairs` says.
      limits: bounds on seed files.
    Returns:
      The probe set. Its `origin` holds all of the above as chosen, the model's sha256 and the queries made.
    Raises:
      InvalidInputError: an argument or the seeds cannot be used.
      NotAdaptableError: the model does not take probes of this space.
      NonFiniteError: the model gives NaN or infinity.
    """
    adapter = _adapted(model, space, hint)
    method = method or ("pgd" if adapter.has_gradients else "search")
    _check(adapter, method, n_pairs, n_steps, query_budget)
    before = adapter.queries
    wanted, steps = _planned([adapter, *beside], method, n_pairs, n_steps, query_budget)
    number = _number(key)
    rng = np.random.default_rng([number, 1])  # apart from the stream that draws the seeds
    chosen, source = load_seeds(seeds, adapter.space, wanted, number, at_most=n_pairs is None, limits=limits)
    own = adapter.react(chosen)
    usual = hill_climbing.EPS_TOKENS if adapter.space.kind == "tokens" else hill_climbing.EPS
    settings: dict[str, Any] = {"eps": eps if eps is not None else pgd.EPS if method == "pgd" else usual}
    bounds: dict[str, Any] = {"low": adapter.space.low, "high": adapter.space.high, "own": own}
    if method == "pgd":
        settings["direction"] = direction or ("toward" if own.min() >= 0 and own.max() <= 1 else "away")
        settings["step"] = pgd.default_step(settings["eps"], steps) if step is None else step
        start = jax.random.key(on_device(np.uint32(rng.integers(2**31))))
        partners = pgd.pgd(adapter.reactions, adapter.params, chosen, key=start, n_steps=steps, **settings, **bounds)
    else:
        budget = 2 * len(chosen) * steps if query_budget is None else query_budget - len(chosen)
        partners, asked = hill_climbing.search(adapter.react, chosen, rng=rng, budget=budget, **settings, **bounds)
        steps = asked // (2 * len(chosen))
    origin = {
        "method": method,
        **settings,
        "steps": steps,
        "seeds": source,
        "key": number,
        "model": adapter.model.origin.path,
        "model_sha256": adapter.model.origin.sha256,
        "queries": adapter.queries - before,
    }
    if metric is None:
        metric = "euclidean" if own.shape[1] == 1 else "cosine"
    return ProbeSet(chosen, partners, adapter.space, metric, origin)


def effort(
    adapter: Adapter,
    n_pairs: int | None = None,
    n_steps: int | None = None,
    *,
    method: Method = "pgd",
    budget: float = BUDGET,
) -> tuple[int, int]:
    """How many pairs and steps a model is given: by its size alone, so that it is the same on every machine.

    A step costs two reactions a pair: forward and back, or two queries. Where all of them would cost more than the
    budget, steps are lowered to 3, then pairs to 50 and 25, then steps to 2. On small networks 2 steps tell children
    from strangers almost as well as 50, while the paper's ablation loses a sixth of its hits with 10 pairs.

    Args:
      adapter: the model.
      n_pairs: what the caller insists on; None for what is affordable.
      n_steps: likewise.
      method: for the usual number of steps.
      budget: for all reactions together, in floating-point operations' worth of work.
    Returns:
      Pairs and steps.
    """
    steps = n_steps or STEPS[method]
    flops, values = adapter.flops(1), adapter.values(1)
    if not flops or not values:
        return n_pairs or N_PAIRS, steps
    reactions = budget / (flops + FLOPS_A_VALUE * values)
    for pairs in (n_pairs,) if n_pairs else _FEWER_PAIRS:
        affordable = int((reactions / pairs - 1) / 2)
        if affordable >= (n_steps or _ENOUGH_STEPS):
            break
    return pairs, n_steps or max(_FEWEST_STEPS, min(steps, affordable))


def _planned(
    adapters: Sequence[Adapter], method: Method, n_pairs: int | None, n_steps: int | None, query_budget: int | None
) -> tuple[int, int]:
    """Pairs for all models, and steps on the first; under a query budget as many pairs as get a few rounds each."""
    pairs = n_pairs or min(effort(adapter, None, n_steps, method=method)[0] for adapter in adapters)
    if query_budget is None:
        return effort(adapters[0], pairs, n_steps, method=method)
    return n_pairs or max(2, min(pairs, query_budget // (1 + 2 * _FEW_ROUNDS))), 0


def _adapted(model: Model | Adapter, space: ProbeSpace | None, hint: InputHint | None) -> Adapter:
    if not isinstance(model, Adapter):
        return adapt(model, space or space_of(model, hint), hint)
    if (space is not None and space != model.space) or hint is not None:
        raise InvalidInputError(
            "An adapter already has its space and hint", got="another `space` or a `hint`", where="make_probes"
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
    """The key as a non-negative integer."""
    if isinstance(key, (int, np.integer)):
        if key < 0:
            raise InvalidInputError("`key` is not negative", got=str(key), where="make_probes")
        return int(key)
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return int.from_bytes(np.asarray(data).astype("<u4").tobytes(), "little")
