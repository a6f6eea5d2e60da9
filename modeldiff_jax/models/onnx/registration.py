"""Registration of ONNX's operators: the registry's decorator with ONNX's own domain as the default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from modeldiff_jax.models.graph import registry

ONNX = "ai.onnx"
"""The domain of standard operators, which files also write as the empty string."""

registry.name_versions(ONNX, "opset")

F = TypeVar("F", bound=Callable[..., Any])


def op(name: str, *, since: int = 1, domain: str = ONNX) -> Callable[[F], F]:
    """Registers a function for an operator from opset `since` of `domain` on; see `graph.registry`.

    `tests/models/onnx/test_schemas.py` holds every signature against the ONNX schemas.
    """
    return registry.op(name, domain=domain, since=since)
