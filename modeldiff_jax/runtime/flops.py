"""Counts floating-point operations of a traced function, before any compiler: the same on every machine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

_MOVES = frozenset(
    {
        "broadcast_in_dim",
        "concatenate",
        "convert_element_type",
        "copy",
        "dynamic_slice",
        "dynamic_update_slice",
        "expand_dims",
        "gather",
        "iota",
        "optimization_barrier",
        "pad",
        "platform_index",
        "reshape",
        "rev",
        "select_n",
        "slice",
        "squeeze",
        "stop_gradient",
        "transpose",
    }
)
"""Primitives that move values without computing any."""


def count_flops(jaxpr: Any) -> float:
    """Counts operations of a jaxpr: two for each product of a convolution or matrix product, one for each other value.

    A scan counts as often as it runs, a Pallas kernel once for each point of its grid, a loop of unknown length once, a
    branch as its most expensive side.

    Args:
      jaxpr: as `jax.make_jaxpr` or `jax.jit(...).trace(...).jaxpr` give it; unused results count too.
    """
    return sum(flops for _, flops in flops_by_equation(jaxpr))


def flops_by_equation(jaxpr: Any, times: float = 1.0) -> Iterator[tuple[Any, float]]:
    """Yields each equation that calls no other, with its operations in all its runs, as `count_flops` counts them.

    Args:
      jaxpr: as for `count_flops`.
      times: number of runs of the whole jaxpr.
    """
    for equation in jaxpr.eqns:
        inner = list(called_jaxprs(equation.params))
        if equation.primitive.name == "cond":
            inner = [max(inner, key=count_flops)]
        for called in inner:
            yield from flops_by_equation(called, times * _trips(equation))
        if not inner:
            yield equation, times * _flops(equation)


def _trips(equation: Any) -> float:
    match equation.primitive.name:
        case "scan":
            return float(equation.params["length"])
        case "pallas_call":
            return float(math.prod(n for n in equation.params["grid_mapping"].grid if isinstance(n, int)))
        case _:
            return 1.0


def count_values(jaxpr: Any) -> float:
    """Counts values written by a jaxpr without fusion of operations; loops and branches as in `count_flops`."""
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        inner = [count_values(jaxpr) for jaxpr in called_jaxprs(params)]
        if name == "cond":
            total += max(inner)
        elif inner:
            total += sum(inner) * _trips(equation)
        else:
            total += sum(math.prod(value.aval.shape) for value in equation.outvars)
    return total


def _flops(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name in _MOVES:
        return 0.0
    results = sum(math.prod(value.aval.shape) for value in equation.outvars)
    operands = [value.aval.shape for value in equation.invars]
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return 2.0 * results * math.prod(operands[0][axis] for axis in contracted)
    if name == "conv_general_dilated":
        return _convolution(params, operands[0], operands[1], results)
    if name.startswith(("reduce_", "cum", "arg")):
        return float(max(math.prod(shape) for shape in operands))
    return float(results)


def _convolution(params: Any, x: tuple[int, ...], filters: tuple[int, ...], results: int) -> float:
    """Counts a convolution's operations, without products with padding or with the zeros of a dilated input."""
    outputs = filters[params["dimension_numbers"].rhs_spec[0]]
    per_output = math.prod(filters) / outputs
    per_input = math.prod(filters) / filters[params["dimension_numbers"].rhs_spec[1]]
    products = math.prod(x) * per_input / params["feature_group_count"] / math.prod(params["window_strides"])
    return 2.0 * min(results * per_output, products)


def called_jaxprs(params: Any) -> Iterator[Any]:
    """Yields the jaxprs a primitive calls."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            jaxpr = getattr(part, "jaxpr", part)
            if hasattr(jaxpr, "eqns"):
                yield jaxpr
