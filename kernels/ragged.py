"""Pairwise distances of many models whose reactions differ in length: a list of (N, C_i) -> a list of (N, N).

Models are stacked with others of nearly their width, padded with zeros, and each stack is one call: few programs are
compiled, and at most a quarter of the work is padding. Padding is exact: zeros change no distance but hamming's, a
mean over all entries, which is counted anew over those that are there. Correlation would need other means in each
model, so its stacks hold models of exactly one width.

Everything else is as in `pairwise`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.inputs import ArrayInput, as_float32
from modeldiff_jax.kernels.pairwise import pairwise_distances

_EXACT_WIDTH = ("correlation",)


def ragged_distances(
    reactions: Sequence[ArrayInput],
    metric: str = "cosine",
    *,
    condensed: bool = False,
    implementation: str | None = None,
) -> list[Float[Array, "n n"]] | list[Float[Array, " p"]]:
    """The distances between the vectors of each array.

    Args:
      reactions: arrays (N, C) whose C, and N, may differ.
      metric: as in `pairwise_distances`.
      condensed: likewise.
      implementation: likewise.

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
        stacks[x.shape[0], x.shape[1] if metric in _EXACT_WIDTH else bucket(x.shape[1])].append(i)
    results: dict[int, jax.Array] = {}
    for (_, width), members in stacks.items():
        stack = jnp.stack([jnp.pad(arrays[i], ((0, 0), (0, width - arrays[i].shape[1]))) for i in members])
        distances = pairwise_distances(stack, None, metric, condensed=condensed, implementation=implementation)
        for i, own in zip(members, distances, strict=True):
            results[i] = jnp.round(own * width) / arrays[i].shape[1] if metric == "hamming" else own
    return [results[i] for i in range(len(arrays))]


def bucket(width: int) -> int:
    """The least of 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, ... that is not below `width`."""
    step = max(1, 1 << max(0, (width - 1).bit_length() - 3))
    return -(-width // step) * step
