"""The operator registry: plain functions keyed by (domain, name, since).

A domain is a dialect of operators: `ai.onnx`, another one of ONNX's, or a format's own. An operator is one function
whose signature is its whole contract:

    @op("Reshape", since=14, domain="ai.onnx")
    def reshape(x: Value, shape: Static, /, *, allowzero: int = 0) -> Value: ...

- positional-only parameters are the inputs in order (an omitted optional one is `None`), `*xs` a variadic one;
- keyword-only parameters are the attributes, with the schema's defaults (`None` if it has none);
- `Static` marks an input that must be known while tracing; it is a numpy array;
- `Index` marks an input of integers that are indices or sizes only; next to traced data they are int32, saturated at
  its ends;
- a keyword-only `n_outputs` receives the number of outputs that the node uses, `stream` a number unique to the node;
- several outputs are a tuple; a sequence, which is a tuple itself, is returned in a tuple of one.

The function with the greatest `since` not above the node's version serves it: seven in ten new versions of an operator
change types or wording only. `graph.values` describes inputs and outputs.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypeVar

from modeldiff_jax.errors import UnsupportedModelError
from modeldiff_jax.models.graph.ir import Node

_STATIC = "static"
Static: TypeAlias = Annotated[Any, _STATIC]
"""A numpy array, known while tracing; `None` when omitted."""
_INDEX = "index"
Index: TypeAlias = Annotated[Any, _INDEX]
"""Integers that are indices: int32 next to traced data, so that 64-bit ones cost no more."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Op:
    """A registered function and the contract in its signature."""

    name: str
    domain: str
    since: int
    function: Callable[..., Any]
    static_inputs: frozenset[int]
    all_inputs_static: bool
    index_inputs: frozenset[int]
    attributes: Mapping[str, Any]
    wants_n_outputs: bool
    wants_stream: bool

    def is_static(self, position: int) -> bool:
        """Returns whether input `position` must be known while tracing."""
        return self.all_inputs_static or position in self.static_inputs


_REGISTRY: dict[tuple[str, str], dict[int, Op]] = {}
_VERSION_WORDS: dict[str, str] = {}


def name_versions(domain: str, word: str) -> None:
    """Sets the word, such as `opset`, that messages use for a version of the domain's operators."""
    _VERSION_WORDS[domain] = word


def op(name: str, *, domain: str, since: int = 1) -> Callable[[F], F]:
    """Registers a function for an operator of `domain` from version `since` on; refuses duplicates."""

    def register(function: F) -> F:
        versions = _REGISTRY.setdefault((domain, name), {})
        if since in versions:
            raise ValueError(f"{domain}.{name} since {since} is registered twice")
        versions[since] = _describe(function, name, since, domain)
        return function

    return register


def _describe(function: Callable[..., Any], name: str, since: int, domain: str) -> Op:
    try:
        parameters = list(inspect.signature(function).parameters.values())
        hints = typing.get_type_hints(function, include_extras=True)
    except (TypeError, ValueError, NameError):  # a ufunc of jax.numpy: inputs only, none static
        parameters, hints = [], {}

    def marked(parameter: inspect.Parameter, mark: str = _STATIC) -> bool:
        return mark in getattr(hints.get(parameter.name), "__metadata__", ())

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
        index_inputs=frozenset(i for i, p in enumerate(positional) if marked(p, _INDEX)),
        attributes={k: v for k, v in keywords.items() if k not in ("n_outputs", "stream")},
        wants_n_outputs="n_outputs" in keywords,
        wants_stream="stream" in keywords,
    )


def lookup(node: Node) -> Op:
    """Returns the function that serves a node.

    Raises:
      UnsupportedModelError: unknown domain, operator, version or attribute; names node, operator and version.
    """
    versions = _REGISTRY.get((node.domain, node.op), {})
    version = f"{_VERSION_WORDS.get(node.domain, 'version')} {node.version}"
    known = [since for since in versions if since <= node.version]
    if not known:
        fix = "export the model with other operators, or register this one: modeldiff_jax.models.graph.registry.op"
        if node.domain not in {domain for domain, _ in _REGISTRY}:
            got = f"unknown domain {node.domain}"
        elif versions:
            got = f"{node.domain}.{node.op} at {version}; implemented since {sorted(versions)}"
            fix = "export the model again with a newer one"
        else:
            got = f"{node.domain}.{node.op} at {version}"
        raise UnsupportedModelError("Every operator of a model must be implemented", got=got, where=str(node), fix=fix)
    operator = versions[max(known)]
    unknown = sorted(set(node.attributes) - set(operator.attributes))
    if unknown:
        raise UnsupportedModelError(
            "Every attribute of a node must be one the operator knows",
            got=f"attribute {', '.join(unknown)} on {node.domain}.{node.op} at {version}",
            where=str(node),
            fix=f"known attributes: {', '.join(sorted(operator.attributes)) or 'none'}",
        )
    return operator


def registered() -> Mapping[tuple[str, str], Mapping[int, Op]]:
    """Returns all operators: (domain, name) -> since -> `Op`."""
    return _REGISTRY
