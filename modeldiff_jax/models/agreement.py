"""The rule by which two runtimes agree on an output, for the verdict and the table of `modeldiff convert --check`.

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
    """The largest error that is allowed.

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
    # onnxruntime's Sigmoid has an error of 1e-7, which is the whole range of an output that is zero nearly everywhere
    "float32": Tolerance(1e-4, 1e-6),
    "float16": Tolerance(2e-2, 1e-3),
    "bfloat16": Tolerance(1e-1, 1e-2),
}
"""Tolerances by floating-point type."""
_SMALL_FLOATS = Tolerance(0.25, 0.125)
"""For floats of 8 bits and fewer: a few steps of a type with two or three bits of fraction."""
EXACT = Tolerance(0.0, 0.0)


def tolerance(dtype: Any, working_types: Iterable[Any] = ()) -> Tolerance:
    """Returns the tolerance of a comparison of two runtimes' outputs.

    Args:
      dtype: of the output.
      working_types: types in which the model computes; those that are not floats are ignored.
    """
    if np.dtype(dtype).kind == "O" or not jnp.issubdtype(dtype, jnp.inexact):
        return EXACT
    return max(map(_for_type, (dtype, *working_types)), key=lambda candidate: candidate.share)


def _for_type(dtype: Any) -> Tolerance:
    if np.dtype(dtype).kind == "O" or not jnp.issubdtype(dtype, jnp.inexact):
        return EXACT
    real = np.dtype({"complex64": np.float32, "complex128": np.float64}.get(np.dtype(dtype).name, dtype))
    return TOLERANCES.get(real.name, _SMALL_FLOATS)


@dataclass(frozen=True)
class OutputCheck:
    """The difference between an output and the reference runtime's.

    Attributes:
      name, shape, dtype: the output as the reference runtime gives it.
      max_error: largest absolute difference; infinite where only one side is finite, or where shapes or types differ.
        For strings 1 if any differs.
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


def compare_output(name: str, output: Any, reference: Any, working_types: Iterable[Any] = ()) -> OutputCheck:
    """Compares an output with the reference runtime's.

    Args:
      name: of the output.
      output: its values, array-like.
      reference: the reference runtime's values.
      working_types: as for `tolerance`.
    """
    output, reference = np.asarray(output), np.asarray(reference)
    if output.shape != reference.shape or (output.dtype == object) != (reference.dtype == object):
        error, span = math.inf, 1.0
    elif reference.dtype == object:
        error, span = float(not np.array_equal(output, reference)), 1.0
    else:
        error, span = _largest_error(output, reference), _range(reference)
    allowed = tolerance(reference.dtype, working_types).allowed(span)
    kind = "string" if reference.dtype == object else reference.dtype.name
    return OutputCheck(name, reference.shape, kind, error, span, error / span, allowed, error <= allowed)


def _largest_error(output: np.ndarray, reference: np.ndarray) -> float:
    if jnp.issubdtype(reference.dtype, jnp.integer):  # which float64 would round beyond 2**53
        a, b = output.astype(object), reference.astype(object)
        return float(np.max(np.abs(a - b), initial=0))
    wide = np.complex128 if jnp.issubdtype(reference.dtype, jnp.complexfloating) else np.float64
    a, b = output.astype(wide), reference.astype(wide)
    same = (a == b) | (np.isnan(a) & np.isnan(b))  # equal infinities would give NaN as a difference
    with np.errstate(invalid="ignore"):
        errors = np.where(same, 0.0, np.abs(a - b))
    return float(np.max(np.where(np.isnan(errors), np.inf, errors), initial=0.0))


def _range(values: np.ndarray) -> float:
    parts = [values.real, values.imag] if jnp.issubdtype(values.dtype, jnp.complexfloating) else [values]
    finite = np.concatenate([part[np.isfinite(part)].ravel() for part in (p.astype(np.float64) for p in parts)])
    span = float(np.ptp(finite)) if finite.size else 0.0
    return span or float(np.max(np.abs(finite), initial=0.0)) or 1.0
