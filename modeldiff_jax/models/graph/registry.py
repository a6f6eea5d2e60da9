"""The operator registry: plain functions keyed by (domain, name, since).

An operator is one function whose signature is its whole contract:

    @op("Reshape", since=14)
    def reshape(x: Value, shape: Static, /, *, allowzero: int = 0) -> Value: ...

- positional-only parameters are the inputs in order (an omitted optional one arrives as `None`), `*xs` a variadic one;
- keyword-only parameters are the attributes, with the schema's defaults (`None` where it has none);
- `Static` marks an input that must be known while tracing; it arrives as a numpy array;
- a keyword-only `n_outputs` receives the number of outputs the node asks for, `stream` a number of the node's own;
- several outputs are a tuple, and a sequence, being a tuple itself, is given as a tuple of one.

The function of greatest `since` not above the model's opset serves a node: seven in ten new versions of an operator
change types or wording only. `tests/models/onnx/test_schemas.py` holds every signature against the ONNX schemas.

Values are numpy arrays where concrete (shapes, axes, weights being folded) and JAX arrays where traced. `xp(x, y)`
gives numpy when all values are concrete and jax.numpy otherwise, so that shape arithmetic stays on the host in int64.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any, TypeAlias, TypeVar

import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import UnsupportedModelError
from modeldiff_jax.models.graph.ir import Node

Value: TypeAlias = Any
"""numpy array (concrete), JAX array (traced), a tuple of these (sequence) or `None` (omitted)."""

_STATIC = "static"
Static: TypeAlias = Annotated[Any, _STATIC]
"""A numpy array, known while tracing; `None` when omitted."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Op:
    """One registered function and what its signature says."""

    name: str
    domain: str
    since: int
    function: Callable[..., Any]
    static_inputs: frozenset[int]
    all_inputs_static: bool
    attributes: Mapping[str, Any]
    wants_n_outputs: bool
    wants_stream: bool

    def is_static(self, position: int) -> bool:
        """Whether input `position` must be known while tracing."""
        return self.all_inputs_static or position in self.static_inputs


_REGISTRY: dict[tuple[str, str], dict[int, Op]] = {}


def op(name: str, *, since: int = 1, domain: str = "") -> Callable[[F], F]:
    """Registers a function for an operator from opset `since` of `domain` on. Refuses doubles."""

    def register(function: F) -> F:
        versions = _REGISTRY.setdefault((domain, name), {})
        if since in versions:
            raise ValueError(f"{domain or 'ai.onnx'}.{name} since {since} is registered twice")
        versions[since] = _describe(function, name, since, domain)
        return function

    return register


def _describe(function: Callable[..., Any], name: str, since: int, domain: str) -> Op:
    try:
        parameters = list(inspect.signature(function).parameters.values())
        hints = typing.get_type_hints(function, include_extras=True)
    except (TypeError, ValueError, NameError):  # a ufunc of jax.numpy: inputs only, none static
        parameters, hints = [], {}

    def marked(parameter: inspect.Parameter) -> bool:
        return _STATIC in getattr(hints.get(parameter.name), "__metadata__", ())

    positional = [p for p in parameters if p.kind is p.POSITIONAL_ONLY]
    variadic = [p for p in parameters if p.kind is p.VAR_POSITIONAL]
    keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    return Op(
        name,
        domain,
        since,
        function,
        static_inputs=frozenset(i for i, p in enumerate(positional) if marked(p)),
        all_inputs_static=any(map(marked, variadic)),
        attributes={k: v for k, v in keywords.items() if k not in ("n_outputs", "stream")},
        wants_n_outputs="n_outputs" in keywords,
        wants_stream="stream" in keywords,
    )


def lookup(node: Node, opsets: Mapping[str, int]) -> Op:
    """The function that serves `node` at the model's opset.

    Raises:
      UnsupportedModelError: unknown domain, operator, version or attribute; names node, operator and opset.
    """
    domain = node.domain or "ai.onnx"
    versions = _REGISTRY.get((node.domain, node.op), {})
    opset = opsets.get(node.domain)
    known = [since for since in versions if opset is not None and since <= opset]
    if not known:
        if node.domain not in {d for d, _ in _REGISTRY}:
            got, fix = f"unknown domain {domain}", "export the model with standard ONNX operators"
        elif opset is None:
            got, fix = f"domain {domain}, which the model does not import", "add it to the model's opset imports"
        elif versions:
            got, fix = (
                f"{domain}.{node.op} at opset {opset}; implemented since {sorted(versions)}",
                "re-export at a newer opset",
            )
        else:
            got, fix = (
                f"{domain}.{node.op} at opset {opset}",
                "export the model with another operator, or register one with `op`",
            )
        raise UnsupportedModelError("Every operator of a model must be implemented", got=got, where=str(node), fix=fix)
    found = versions[max(known)]
    unknown = sorted(set(node.attributes) - set(found.attributes))
    if unknown:
        raise UnsupportedModelError(
            "Every attribute of a node must be one the operator knows",
            got=f"attribute {', '.join(unknown)} on {domain}.{node.op} at opset {opset}",
            where=str(node),
            fix=f"known attributes: {', '.join(sorted(found.attributes)) or 'none'}",
        )
    return found


def registered() -> Mapping[tuple[str, str], Mapping[int, Op]]:
    """All operators: (domain, name) -> since -> `Op`."""
    return _REGISTRY


def concrete(*values: Value) -> bool:
    """Whether every value (omitted ones aside) is known on the host."""
    return all(v is None or isinstance(v, (np.ndarray, np.generic, int, float)) for v in values)


def xp(*values: Value) -> ModuleType:
    """numpy when every value is concrete, else jax.numpy."""
    return np if concrete(*values) else jnp
