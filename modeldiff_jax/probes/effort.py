"""Effort: how many probe pairs and attack steps a model is given, by its cost per reaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from modeldiff_jax.probes import pgd
from modeldiff_jax.probes.adapt import Adapter

Method: TypeAlias = Literal["pgd", "search"]

N_PAIRS = 100
"""As in the paper, whose ablation gains nothing from 200 and loses little with 50."""
STEPS: dict[Method, int] = {"pgd": pgd.N_STEPS, "search": 10}
"""Steps of the attack, rounds of the search. On small networks 5 rounds separate derived models as well as 50."""
BUDGET = 2e11
"""FLOP budget of one side's partners: 2 to 8 seconds on two CPU cores, each of which does 10 to 50 GFLOP/s in
convolutional networks. Compilation takes about as long."""
FLOPS_A_VALUE = 10.0
"""Operations that take as long as moving one value through memory: a CPU core does about 4e10 operations, or
moves 4e9 values, a second."""
_FEWER_PAIRS = (N_PAIRS, N_PAIRS // 2, N_PAIRS // 4)
_ENOUGH_STEPS, _FEWEST_STEPS = 3, 2
_FEW_ROUNDS = 5


def effort(
    adapter: Adapter,
    n_pairs: int | None = None,
    n_steps: int | None = None,
    *,
    method: Method = "pgd",
    budget: float = BUDGET,
) -> tuple[int, int]:
    """Returns how many pairs and steps fit the budget, by the model's size alone: the same on every machine.

    A step costs two reactions a pair: forward and backward, or two queries. Where all of them would cost more than the
    budget, steps are lowered to 3, then pairs to 50 and 25, then steps to 2. On small networks 2 steps separate derived
    models from unrelated ones almost as well as 50, while the paper's ablation loses a sixth of its hits with 10 pairs.

    Args:
      adapter: the model.
      n_pairs: number of pairs, if the caller fixes it; None for the affordable number.
      n_steps: likewise.
      method: of the attack, for the default number of steps.
      budget: FLOP budget of all reactions together.
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


def planned(
    adapters: Sequence[Adapter], method: Method, n_pairs: int | None, n_steps: int | None, query_budget: int | None
) -> tuple[int, int]:
    """Returns pairs for all models, and steps on the first; a query budget allows each pair a few rounds."""
    pairs = n_pairs or min(effort(adapter, None, n_steps, method=method)[0] for adapter in adapters)
    if query_budget is None:
        return effort(adapters[0], pairs, n_steps, method=method)
    return n_pairs or max(2, min(pairs, query_budget // (1 + 2 * _FEW_ROUNDS))), 0
