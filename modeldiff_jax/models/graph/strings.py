"""Strings in a traced program, which JAX has no type for.

Known strings are numpy arrays of objects, and operators on them run on the host. Where traced data choose among known
strings (a classifier's labels) the value is `Strings`: traced places in a list of words that is known. Operators that
only move elements then move the places, and those that look at one string at a time look at each word once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from modeldiff_jax.errors import UnsupportedModelError
from modeldiff_jax.models.graph.ir import Node
from modeldiff_jax.models.graph.traits import traits_of
from modeldiff_jax.models.graph.values import Value, concrete
from modeldiff_jax.runtime import x64


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, slots=True, eq=False)
class Strings:
    """An array of strings that traced data chose: a pytree of places in a list of words. Numpy makes strings of it.

    Attributes:
      places: int32 of any shape.
      words: the strings that may occur.
    """

    places: Value
    words: tuple[str, ...]

    dtype = np.dtype(object)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self.places.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return int(self.places.ndim)

    def tree_flatten(self) -> tuple[tuple[Value], tuple[str, ...]]:
        """Places as data, words as part of the structure."""
        return (self.places,), self.words

    @classmethod
    def tree_unflatten(cls, words: tuple[str, ...], children: Sequence[Value]) -> Strings:
        """The inverse."""
        (places,) = children
        return cls(places, words)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Returns the strings as numpy objects."""
        return np.array(self.words, object)[np.asarray(self.places)]


export.register_pytree_node_serialization(
    Strings,
    serialized_name="modeldiff_jax.Strings",
    serialize_auxdata=lambda words: json.dumps(words).encode(),
    deserialize_auxdata=lambda data: tuple(json.loads(data.decode())),
)


def is_string_array(value: Any) -> bool:
    """Returns whether a value is a numpy array of strings."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype == object
        and value.size > 0
        and all(isinstance(entry, str) for entry in value.flat)
    )


def encoded(value: np.ndarray) -> Strings:
    """Returns a numpy array of strings as places in the list of its words."""
    words, places = np.unique(value.astype(str), return_inverse=True)
    return Strings(jnp.asarray(places.reshape(value.shape), np.int32), tuple(words.tolist()))


def needs_places(arguments: Sequence[Value]) -> bool:
    """Returns whether an operator's inputs mix strings with traced data."""
    if any(isinstance(value, Strings) for value in arguments):
        return True
    return not concrete(*arguments) and any(map(is_string_array, arguments))


def on_places(node: Node, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function of a node's operator for inputs of which some are `Strings`."""
    traits = traits_of(node)

    def moved(*arguments: Value, **attributes: Any) -> Any:
        """Moves places in one list of all words."""
        held = [encoded(value) if is_string_array(value) else value for value in arguments]
        words = tuple(dict.fromkeys(word for value in held if isinstance(value, Strings) for word in value.words))
        at = {word: place for place, word in enumerate(words)}

        def place(value: Value) -> Value:
            if not isinstance(value, Strings):
                return value
            return jnp.asarray([at[word] for word in value.words], np.int32)[value.places]

        results = function(*map(place, held), **attributes)
        return jax.tree.map(lambda places: Strings(places, words), results)

    def each(*arguments: Value, **attributes: Any) -> Any:
        """Looks up what the operator makes of each word."""
        at, value = next((i, v) for i, v in enumerate(arguments) if isinstance(v, Strings))
        rest = [None if v is None else np.reshape(v, ()) for v in arguments[:at] + arguments[at + 1 :]]
        table = np.asarray(function(*rest[:at], np.array(value.words, object), *rest[at:], **attributes))
        if table.dtype == object:
            found = encoded(table)
            return Strings(found.places[value.places], found.words)
        return x64.in_types_of((table, value), lambda: jnp.asarray(table)[value.places])

    def refused(*arguments: Value, **attributes: Any) -> Any:
        raise UnsupportedModelError(
            "Of strings that depend on traced data, the program knows places in a list of words",
            got=f"{node.op}, which needs the strings themselves",
            fix="call the model operator by operator, model.eager(...), or fix its inputs: model.bind(name=value)",
        )

    if traits.moves_elements:
        return moved
    return each if traits.reads_each_string else refused


def decoded(outputs: Any) -> Any:
    """Returns a model's outputs with numpy arrays of strings in place of `Strings`."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf) if isinstance(leaf, Strings) else leaf,
        outputs,
        is_leaf=lambda leaf: isinstance(leaf, Strings),
    )
