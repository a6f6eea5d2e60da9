"""Pairwise distances within each of many arrays whose vectors differ in length: a list of (N, C_i) -> a list of (N, N).

Arrays of nearly equal width, such as the reactions of several models, are padded with zeros and stacked, and each stack
is one call of `pairwise_distances`. So few programs are compiled, and at most a quarter of the work is padding. Padding
is exact: zeros change no distance but hamming's, a mean over all entries, which is rescaled to the original entries.
Correlation subtracts a mean, which zeros would change, so its stacks hold arrays of exactly one width.

Types, metrics, rules and bounds are those of `pairwise`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.buckets import round_up
from modeldiff_jax.kernels.inputs import ArrayInput, as_float32
from modeldiff_jax.kernels.pairwise import pairwise_distances

_EXACT_WIDTH = ("correlation",)


def ragged_distances(
    reactions: Sequence[ArrayInput],
    metric: str = "cosine",
    *,
    condensed: bool = False,
    implementation: str | None = None,
) -> list[Float[Array, "_ _"]] | list[Float[Array, " _"]]:
    """Returns, for each array, the distances between its vectors.

    Args:
      reactions: arrays (N, C); both N and C may differ.
      metric: as in `pairwise_distances`.
      condensed: as in `pairwise_distances`.
      implementation: as in `pairwise_distances`.

    Returns:
      One array (N, N), or (N (N - 1) / 2) if condensed, for each of `reactions`, in its order.

    Raises:
      InvalidInputError: an array is not a matrix; and as in `pairwise_distances`.
    """
    arrays = [as_float32(x, f"ragged_distances: reactions[{i}]") for i, x in enumerate(reactions)]
    stacks: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for i, x in enumerate(arrays):
        if x.ndim != 2:
            raise InvalidInputError("Each array is (N, C)", got=f"{x.shape}", where=f"ragged_distances: reactions[{i}]")
        stacks[x.shape[0], x.shape[1] if metric in _EXACT_WIDTH else round_up(x.shape[1])].append(i)
    results: dict[int, jax.Array] = {}
    for (_, width), members in stacks.items():
        stack = _stacked([arrays[i] for i in members], width)
        distances = pairwise_distances(stack, None, metric, condensed=condensed, implementation=implementation)
        widths = tuple(arrays[i].shape[1] for i in members)
        results |= zip(members, _unstacked(distances, widths, width, metric), strict=True)
    return [results[i] for i in range(len(arrays))]


@partial(jax.jit, static_argnames="width")
def _stacked(arrays: list[Array], width: int) -> Array:
    return jnp.stack([jnp.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in arrays])


@partial(jax.jit, static_argnames=("widths", "padded", "metric"))
def _unstacked(distances: Array, widths: tuple[int, ...], padded: int, metric: str) -> list[Array]:
    if metric == "hamming":  # number of entries that differ, over the number of entries
        return [jnp.round(x * padded) / width for x, width in zip(distances, widths, strict=True)]
    return list(distances)
