"""Bounds on operators that move windows over padded arrays: convolutions, pools, and what resembles them.

A few numbers in a file say how far an array is padded and how large a window is, so that neither the arrays that go in
nor those that come out show the memory and the work. These are checked before anything is computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from modeldiff_jax.limits import check_computed, check_made, check_window_reads


def check_windows(
    shape: Sequence[Any], padding: Sequence[tuple[Any, Any]], result: Sequence[Any], reads: int, *, first: int = 2
) -> None:
    """Checks what an operator makes of its input before it computes anything; symbolic sizes are left out.

    Args:
      shape: of the array that the windows move over.
      padding: entries added before and after each of its axes from `first` on; negative ones cut.
      result: the operator's output shape.
      reads: entries of the array that make one entry of the result, padding included.
      first: the first axis that is padded.

    Raises:
      LimitExceededError: padding adds more than `made_elements`, the padded array or the result has more than
        `tensor_elements`, or all windows together read more than `window_reads`.
    """
    if not _known(shape, padding) or not all(isinstance(size, int) for size in result):
        return
    padded = _padded(shape, padding, first)
    check_made((max(math.prod(padded) - math.prod(shape), 0),))
    check_computed(padded)
    sizes = [max(size, 0) for size in result]
    check_computed(sizes)
    check_window_reads(math.prod(sizes) * reads)


def check_padded(shape: Sequence[Any], padding: Sequence[tuple[Any, Any]]) -> None:
    """Checks an array that is cut where its padding is negative, and then padded where it is positive.

    Args:
      shape: of the array.
      padding: entries added before and after each axis.

    Raises:
      LimitExceededError: it has more than `made_elements`.
    """
    if _known(shape, padding):
        check_made(_padded(shape, padding, first=0))


def window_outputs(size: Any, taps: Any, stride: int, dilation: int, padding: tuple[Any, Any]) -> Any:
    """Returns the number of windows along an axis of `size` entries and its padding."""
    return (size + sum(padding) - ((taps - 1) * dilation + 1)) // stride + 1


def _known(shape: Sequence[Any], padding: Sequence[tuple[Any, Any]]) -> bool:
    return all(isinstance(size, int) for size in (*shape, *(end for ends in padding for end in ends)))


def _padded(shape: Sequence[int], padding: Sequence[tuple[int, int]], first: int) -> list[int]:
    sizes = list(shape)
    for axis, (before, after) in enumerate(padding, start=first):
        sizes[axis] = max(shape[axis] + min(before, 0) + min(after, 0), 0) + max(before, 0) + max(after, 0)
    return sizes
