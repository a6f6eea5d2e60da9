"""When two runtimes agree on an output: one rule for the verdict and the table of `modeldiff convert --check`.

The largest error may be a share of the output's range, or an absolute amount where that is more; both depend on the
least precise type of floats that the model works in, which need not be the output's own: a network in float16 may end
in a cast to float32. Integers, booleans and strings must be equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Tolerance:
    """Bounds on the largest error.

    Attributes:
      share: of the output's range.
      absolute: in the output's own unit.
    """

    share: float
    absolute: float

    def allowed(self, value_range: float) -> float:
        """Returns the largest error that an output with this range of values may have."""
        return max(self.share * value_range, self.absolute)


TOLERANCES = {
    "float64": Tolerance(1e-9, 1e-12),
    # onnxruntime's Sigmoid is off by 1e-7, which is all there is of an output that is zero nearly everywhere
    "float32": Tolerance(1e-4, 1e-6),
    "float16": Tolerance(2e-2, 1e-3),
    "bfloat16": Tolerance(1e-1, 1e-2),
}
"""By type of floats. Floats of 8 bits and fewer have two or three bits of fraction: a few of their steps."""
_SMALL_FLOATS = Tolerance(0.25, 0.125)
EXACT = Tolerance(0.0, 0.0)


def tolerance(dtype: Any, working_types: Iterable[Any] = ()) -> Tolerance:
    """Returns how far two runtimes may lie apart in an output.

    Args:
      dtype: of the output.
      working_types: in which the model computes; those that are no floats are left out.
    """
    if np.dtype(dtype).kind == "O" or not jnp.issubdtype(dtype, jnp.inexact):
        return EXACT
    return max(map(_of_floats, (dtype, *working_types)), key=lambda bounds: bounds.share)


def _of_floats(dtype: Any) -> Tolerance:
    if np.dtype(dtype).kind == "O" or not jnp.issubdtype(dtype, jnp.inexact):
        return EXACT
    real = np.dtype({"complex64": np.float32, "complex128": np.float64}.get(np.dtype(dtype).name, dtype))
    return TOLERANCES.get(real.name, _SMALL_FLOATS)


@dataclass(frozen=True)
class OutputCheck:
    """How far one output is from the reference runtime's.

    Attributes:
      name, shape, dtype: the output as the reference runtime gives it.
      max_error: largest absolute difference; infinite where only one side is finite, or where shapes or types differ.
        For strings 1 where two differ.
      value_range: largest minus smallest finite reference value (largest magnitude of a constant output); strings: 1.
      share: `max_error / value_range`.
      allowed: the largest error at which the output agrees (`Tolerance.allowed`).
      agrees: whether `max_error` is at most that.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    max_error: float
    value_range: float
    share: float
    allowed: float
    agrees: bool


def compare_output(name: str, ours: Any, theirs: Any, working_types: Iterable[Any] = ()) -> OutputCheck:
    """Compares an output with the reference runtime's.

    Args:
      name: of the output.
      ours: its values, array-like.
      theirs: the reference runtime's.
      working_types: as for `tolerance`.
    """
    mine, other = np.asarray(ours), np.asarray(theirs)
    if mine.shape != other.shape or (mine.dtype == object) != (other.dtype == object):
        error, span = math.inf, 1.0
    elif other.dtype == object:
        error, span = float(not np.array_equal(mine, other)), 1.0
    else:
        error, span = _largest_error(mine, other), _range(other)
    allowed = tolerance(other.dtype, working_types).allowed(span)
    kind = "string" if other.dtype == object else other.dtype.name
    return OutputCheck(name, other.shape, kind, error, span, error / span, allowed, error <= allowed)


def _largest_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    if jnp.issubdtype(theirs.dtype, jnp.integer):  # which float64 would round beyond 2**53
        a, b = ours.astype(object), theirs.astype(object)
        return float(np.max(np.abs(a - b), initial=0))
    wide = np.complex128 if jnp.issubdtype(theirs.dtype, jnp.complexfloating) else np.float64
    a, b = ours.astype(wide), theirs.astype(wide)
    same = (a == b) | (np.isnan(a) & np.isnan(b))  # equal infinities would give NaN as a difference
    with np.errstate(invalid="ignore"):
        gaps = np.where(same, 0.0, np.abs(a - b))
    return float(np.max(np.where(np.isnan(gaps), np.inf, gaps), initial=0.0))


def _range(values: np.ndarray) -> float:
    parts = [values.real, values.imag] if jnp.issubdtype(values.dtype, jnp.complexfloating) else [values]
    finite = np.concatenate([part[np.isfinite(part)].ravel() for part in (p.astype(np.float64) for p in parts)])
    span = float(np.ptp(finite)) if finite.size else 0.0
    return span or float(np.max(np.abs(finite), initial=0.0)) or 1.0
