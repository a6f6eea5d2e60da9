"""Registration of ONNX's operators: the registry's decorator with ONNX's own domain as the default."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

from modeldiff_jax.models.graph import registry

ONNX = "ai.onnx"
"""The domain of standard operators, which files also write as the empty string."""

registry.name_versions(ONNX, "opset")

F = TypeVar("F", bound=Callable[..., Any])


def op(name: str, *, since: int = 1, domain: str = ONNX) -> Callable[[F], F]:
    """Registers a function for an operator from opset `since` of `domain` on; see `graph.registry`.

    A function that a factory makes for one operator of several gets the name of the operator and the opset, `Add_7`.
    `tests/models/onnx/test_schemas.py` holds every signature against the ONNX schemas.
    """
    register = registry.op(name, domain=domain, since=since)

    def named(function: F) -> F:
        if isinstance(function, FunctionType) and "<locals>" in function.__qualname__:
            _rename(function, f"{name}_{since}")
        return register(function)

    return named


def _rename(function: FunctionType, name: str) -> None:
    """Renames a function and those it wraps, in tracebacks and profiles as well: those show the name of its code."""
    wrapped: Any = function
    while isinstance(wrapped, FunctionType):
        wrapped.__name__ = wrapped.__qualname__ = name
        wrapped.__code__ = wrapped.__code__.replace(co_name=name, co_qualname=name)
        wrapped = getattr(wrapped, "__wrapped__", None)
