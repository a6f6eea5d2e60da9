"""Families: models that are one program with different parameters, so that one compilation serves them all.

Two models are of one family when they share `apply`, or when their graphs differ in nothing but names: operators,
attributes, operator versions, wiring, specs, limits and every constant that tracing can see are equal, and so are the
shapes, types and layouts of the parameters. The values of parameters do not count. Constants that the converter makes
part of the program (shapes, axes, scalars, small integer tables) do.
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
    """Returns the structure of a parameter tree, and the shape and type of each leaf."""
    leaves, tree = jax.tree.flatten(params)
    return tree, tuple(map(_kind, leaves))


def united(models: Sequence[Model]) -> tuple[Model, ...]:
    """Returns the same models in the same order, those of one family with one `apply` and parameters of one structure.

    Parameters of all models of a family are named as in the first of them.
    """
    leaders: dict[Hashable, tuple[Model, tuple[str, ...]]] = {}
    results = []
    for model in models:
        program = _program(model)
        if program is not None:
            key, names = program
            leader, leader_names = leaders.setdefault(key, (model, names))
            if leader.apply is not model.apply:
                params = {to: model.params[name] for to, name in zip(leader_names, names, strict=True)}
                model = replace(model, apply=leader.apply, params=params)
        results.append(model)
    return tuple(results)


def _program(model: Model) -> tuple[Hashable, tuple[str, ...]] | None:
    """Returns a key that is equal for all models of a family, and the model's parameter names in the family's order."""
    source = source_of(model.apply)
    if source is None:
        return None
    if model.apply not in _numbered:
        _numbered[model.apply] = numbered(source.graph)
    digest, numbers = _numbered[model.apply]
    if not isinstance(model.params, Mapping) or not model.params.keys() <= numbers.keys():
        return None  # a caller has replaced the parameters
    names = tuple(sorted(model.params, key=lambda name: numbers[name]))
    parameters = tuple((numbers[name], *_kind(model.params[name]), source.orders.get(name)) for name in names)
    return (digest, parameters, source.limits), names


def _kind(leaf: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    return tuple(np.shape(leaf)), np.dtype(leaf.dtype)
