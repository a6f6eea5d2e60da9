"""Counts the work of a program before compilation: operations by kind of product, and bytes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from modeldiff_jax.profiling.machine import DEFAULT
from modeldiff_jax.runtime.flops import called_jaxprs, count_flops, flops_by_equation

_PRODUCTS = frozenset({"dot_general", "conv_general_dilated"})


@dataclass(frozen=True)
class Work:
    """Operations of a program, loops as often as they run.

    Attributes:
      by_kind: kind of product, as `Machine.product_rate` takes it -> operations. Those of no product count as float32.
      by_operator: JAX's primitive -> operations, the most first.
      open_loops: whether there are loops whose number of trips depends on the data; they count as one trip.
      uneven_branches: whether there are branches with different numbers of operations; the greatest counts.
    """

    by_kind: Mapping[str, float]
    by_operator: Mapping[str, float]
    open_loops: bool
    uneven_branches: bool = False

    @property
    def flops(self) -> float:
        """All operations."""
        return sum(self.by_kind.values())


def work_of(jaxpr: Any) -> Work:
    """Counts the operations of a traced program (`jax.jit(...).trace(...).jaxpr`)."""
    by_kind, by_operator = Counter[str](), Counter[str]()
    for equation, flops in flops_by_equation(jaxpr):
        if flops:
            by_kind[_kind(equation)] += flops  # type: ignore[assignment]
            by_operator[equation.primitive.name] += flops  # type: ignore[assignment]
    return Work(dict(by_kind), dict(by_operator.most_common()), _has_open_loop(jaxpr), _has_uneven_branches(jaxpr))


def _kind(equation: Any) -> str:
    if equation.primitive.name not in _PRODUCTS:
        return "float32"
    dtype = np.dtype(equation.invars[0].aval.dtype)
    if dtype != np.float32:
        return dtype.name if dtype.name in ("bfloat16", "float16", "float64", "int8") else "float32"
    precision = equation.params.get("precision")
    each = precision if isinstance(precision, tuple) else (precision,)
    exact = jax.default_backend() == "cpu" or all(p == jax.lax.Precision.HIGHEST for p in each)
    return "float32" if exact else DEFAULT


def _has_open_loop(jaxpr: Any) -> bool:
    """Returns whether there is a loop of an unknown number of trips; loops over a known range are scans."""
    return any(
        equation.primitive.name == "while" or any(map(_has_open_loop, called_jaxprs(equation.params)))
        for equation in jaxpr.eqns
    )


def _has_uneven_branches(jaxpr: Any) -> bool:
    """Returns whether the number of operations depends on a branch that the data decide."""
    return any(
        (equation.primitive.name == "cond" and len(set(map(count_flops, called_jaxprs(equation.params)))) > 1)
        or any(map(_has_uneven_branches, called_jaxprs(equation.params)))
        for equation in jaxpr.eqns
    )


def size_in_bytes(tree: Any) -> int:
    """Returns the bytes of all arrays of a pytree, or of their shapes and dtypes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
