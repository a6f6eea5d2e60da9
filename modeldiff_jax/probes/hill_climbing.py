"""Hill climbing: partners by queries alone, for all pairs at once (the black-box attack of ModelDiff)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Num

from modeldiff_jax.errors import InvalidInputError

React: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""`react(x (M, ...)) -> (M, C)`: reactions to any number of inputs, one row for each."""

EPS = 0.2
"""Size of a move as a share of the value range, as the released code has it."""
EPS_TOKENS = 0.05
"""Share of a sequence's tokens that may be substituted in its partner (at least one).

Two random sequences are about as far apart for every language model, so the distances would show lengths and not
descent: on three small transformers an unrelated model's DDV has a cosine of 0.95 to 0.999 where all tokens may change,
and of 0.86 to 0.97 where a twentieth may, while a copy with a fifth of noise on its weights keeps 0.99.
"""
_FIRST_SHARE = 0.3
"""Share of an input that the first move changes; the share falls linearly to one value at the last round."""
_CHANNELS = 4
"""A last axis of up to this many entries holds channels: a move changes all of them, each with its sign."""


def search(
    react: React,
    seeds: Num[np.ndarray, "n ..."],
    *,
    rng: np.random.Generator,
    budget: int,
    low: float,
    high: float,
    eps: float = EPS,
    seed_reactions: Float[np.ndarray, "n c"] | None = None,
) -> tuple[Num[np.ndarray, "n ..."], int]:
    """Searches for partners whose outputs are far from their seeds' and from each other's, by queries alone.

    Black-box input generation of Li et al., ISSTA 2021, section 4: hill climbing on divergence times diversity. Here
    each pair climbs by its score, and one round runs all pairs in one batch: every pair tries a move and its
    opposite (for tokens: two draws), and keeps the better one if that raises

        ||f(x') - f(x)|| * mean over the other pairs of ||f(x') - f(x'_other)||

    with the others as they were at the start of the round. The paper moves one coordinate at a time. A move here
    changes a box that holds 30 % of the input at first and one value at the end: on small networks boxes
    separate distilled and stolen children from unrelated models after 5 rounds as well as single coordinates after 50.

    Args:
      react: the model's reactions, as a function.
      seeds: (N, ...) inputs; floats, or integers for tokens.
      rng: source of all randomness; equal states give equal partners.
      budget: most inputs that `react` may be run on: N for the seeds, unless `seed_reactions` is given, and 2 N for
        each round.
      low, high: range of the values, inclusive.
      eps: for floats, how far a value may leave its seed's, as a share of the range; for tokens, the share of a
        sequence that may be substituted, each by any other token.
      seed_reactions: (N, C) reactions to the seeds, where they are known.
    Returns:
      (N, ...) partners in the seeds' dtype and range, and the number of inputs that were run.
    Raises:
      InvalidInputError: the budget does not cover one round, or `eps` is not in (0, 1].
    """
    n = len(seeds)
    spent = n if seed_reactions is None else 0
    rounds = (budget - spent) // (2 * n)
    if rounds < 1:
        raise InvalidInputError(
            f"A search over {n} pairs needs a budget of at least {spent + 2 * n} queries",
            got=f"{budget}",
            where="search",
            fix="raise query_budget or lower n_pairs",
        )
    if not 0 < eps <= 1:
        raise InvalidInputError("`eps` is a share of the value range, in (0, 1]", got=f"{eps}", where="search")
    origins = _rows(react, seeds) if seed_reactions is None else np.asarray(seed_reactions, np.float64)
    partners, outputs = seeds.copy(), origins
    for number in range(rounds):
        share = _FIRST_SHARE * (1 - number / rounds)
        moves = propose(rng, seeds, partners, share=share, low=low, high=high, eps=eps)
        candidates = _rows(react, moves.reshape(-1, *seeds.shape[1:])).reshape(2, n, -1)
        scores = [_scores(candidate, origins, outputs) for candidate in (*candidates, outputs)]
        side = np.argmax(scores[:2], axis=0)
        better = np.max(scores[:2], axis=0) > scores[2]
        partners[better] = moves[side[better], np.flatnonzero(better)]
        outputs = np.where(better[:, None], candidates[side, np.arange(n)], outputs)
    return partners, spent + 2 * n * rounds


def propose(
    rng: np.random.Generator,
    seeds: Num[np.ndarray, "n ..."],
    partners: Num[np.ndarray, "n ..."],
    *,
    share: float,
    low: float,
    high: float,
    eps: float,
) -> Num[np.ndarray, "2 n ..."]:
    """Proposes two moves for each partner, within a random box that holds about `share` of its values (at least one).

    Floats become the seed's value plus `eps` of the range, and minus it; tokens are drawn at random, twice.
    """
    if np.issubdtype(seeds.dtype, np.integer):
        inside = _boxes(rng, seeds.shape, min(share, eps))
        drawn = rng.integers(int(low), int(high), (2, *seeds.shape), seeds.dtype, endpoint=True)
        return _few_changes(rng, seeds, np.where(inside, drawn, partners), inside, eps)
    inside = _boxes(rng, seeds.shape, share)
    channels = seeds.shape[-1] if _has_channels(seeds.shape) else 1
    signs = rng.choice(np.array([-1.0, 1.0], seeds.dtype), (len(seeds), channels))
    signs = signs.reshape(len(seeds), *[1] * (seeds.ndim - 2), channels) if seeds.ndim > 1 else signs[:, 0]
    shift = (eps * (high - low) * signs).astype(seeds.dtype)
    return np.stack([np.where(inside, np.clip(seeds + s, low, high), partners) for s in (shift, -shift)])


def _few_changes(
    rng: np.random.Generator,
    seeds: Num[np.ndarray, "n ..."],
    moves: Num[np.ndarray, "2 n ..."],
    inside: Bool[np.ndarray, "n ..."],
    eps: float,
) -> Num[np.ndarray, "2 n ..."]:
    """Limits moves to a share `eps` of changed values: others become the seed's again, those outside the box first."""
    size = math.prod(seeds.shape[1:])
    most = max(1, round(eps * size))
    order = np.where(moves != seeds, rng.random(moves.shape) + np.where(inside, 1.0, 0.0), -1.0)
    ranks = np.argsort(np.argsort(-order.reshape(2, len(seeds), size), axis=-1), axis=-1)
    return np.where(ranks.reshape(moves.shape) < most, moves, seeds)


def _has_channels(shape: tuple[int, ...]) -> bool:
    return len(shape) > 2 and shape[-1] <= _CHANNELS


def _boxes(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> Bool[np.ndarray, "n ..."]:
    """Draws a random box in each input, broadcast over channels."""
    n, *sizes = shape
    axes = sizes[:-1] if _has_channels(shape) else sizes
    inside = np.ones((n, *[1] * len(sizes)), bool)
    for axis, size in enumerate(axes):
        side = max(1, round(size * share ** (1 / len(axes))))
        start = rng.integers(0, size - side, n, endpoint=True)[:, None]
        position = np.arange(size)
        within = (start <= position) & (position < start + side)
        inside = inside & within.reshape(n, *[size if i == axis else 1 for i in range(len(sizes))])
    return inside


def _rows(react: React, x: np.ndarray) -> Float[np.ndarray, "m c"]:
    return np.asarray(react(x), np.float64).reshape(len(x), -1)


def _scores(
    candidates: Float[np.ndarray, "n c"], seed_reactions: Float[np.ndarray, "n c"], outputs: Float[np.ndarray, "n c"]
) -> Float[np.ndarray, " n"]:
    """Returns divergence times diversity of each pair, if its partner's reactions were `candidates`."""
    n = len(seed_reactions)
    divergence = np.linalg.norm(candidates - seed_reactions, axis=1)
    centre = outputs.mean(axis=0)  # less cancellation in the products below
    a, b = candidates - centre, outputs - centre
    squared = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1) - 2 * a @ b.T
    distances = np.sqrt(np.maximum(squared, 0))
    np.fill_diagonal(distances, 0.0)
    return divergence * np.sum(distances, axis=1) / max(1, n - 1)
