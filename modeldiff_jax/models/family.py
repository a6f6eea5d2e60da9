"""Families: models that are one program with different parameters, so that one compilation serves them all.

Two models are of one family when they share `apply`, or when the graphs behind theirs differ in nothing but names:
operators, attributes, operator versions, wiring, specs, limits and every constant that tracing can see are equal, and
so are the shapes, types and kept orders of the parameters. Parameters' values do not count. Constants the converter
makes part of the program (shapes, axes, scalars, small integer tables) do, by value.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import jax
import numpy as np

from modeldiff_jax.models.convert import source_of
from modeldiff_jax.models.graph.digest import Numbers, numbered
from modeldiff_jax.models.model import Model
from modeldiff_jax.types import Apply, Params

Structure: TypeAlias = tuple[Any, tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]]

_numbered: WeakKeyDictionary[Apply, tuple[str, Numbers]] = WeakKeyDictionary()


def structure(params: Params) -> Structure:
    """All of a parameter tree but its values."""
    leaves, tree = jax.tree.flatten(params)
    return tree, tuple(map(_kind, leaves))


def united(models: Sequence[Model]) -> tuple[Model, ...]:
    """The same models in the same order; those of one family have one `apply` and parameters of equal structure.

    Of models whose files name things differently the first one's names are used for all parameters.
    """
    leaders: dict[Hashable, tuple[Model, tuple[str, ...]]] = {}
    found = []
    for model in models:
        program = _program(model)
        if program is not None:
            key, names = program
            leader, theirs = leaders.setdefault(key, (model, names))
            if leader.apply is not model.apply:
                params = {their: model.params[own] for their, own in zip(theirs, names, strict=True)}
                model = replace(model, apply=leader.apply, params=params)
        found.append(model)
    return tuple(found)


def _program(model: Model) -> tuple[Hashable, tuple[str, ...]] | None:
    """What all models of a family share, whatever their names, and the names of this one's parameters in its order."""
    source = source_of(model.apply)
    if source is None:
        return None
    if model.apply not in _numbered:
        _numbered[model.apply] = numbered(source.graph)
    digest, numbers = _numbered[model.apply]
    if not isinstance(model.params, Mapping) or not model.params.keys() <= numbers.keys():
        return None  # parameters of somebody's own
    names = tuple(sorted(model.params, key=lambda name: numbers[name]))
    described = tuple((numbers[name], *_kind(model.params[name]), source.orders.get(name)) for name in names)
    return (digest, described, source.limits), names


def _kind(leaf: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    return tuple(np.shape(leaf)), np.dtype(leaf.dtype)
