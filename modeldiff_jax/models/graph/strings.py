"""Strings in a traced program, a type that JAX does not have.

Known strings are numpy arrays of objects, and operators on them run on the host. If traced data choose among known
strings (a classifier's labels) the value is `Strings`: traced indices into a known list of words. Operators that only
move elements then move the indices, and those that read one string at a time read each word once.
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
    """An array of strings chosen by traced data: a pytree of indices into a list of words. Numpy reads it as strings.

    Attributes:
      indices: int32 of any shape.
      words: the strings that may occur.
    """

    indices: Value
    words: tuple[str, ...]

    dtype = np.dtype(object)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self.indices.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return int(self.indices.ndim)

    def tree_flatten(self) -> tuple[tuple[Value], tuple[str, ...]]:
        """Returns the indices as data and the words as part of the structure."""
        return (self.indices,), self.words

    @classmethod
    def tree_unflatten(cls, words: tuple[str, ...], children: Sequence[Value]) -> Strings:
        """Returns the inverse of `tree_flatten`."""
        (indices,) = children
        return cls(indices, words)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Returns the strings as numpy objects."""
        return np.array(self.words, object)[np.asarray(self.indices)]


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
    """Returns a numpy array of strings as indices into the list of its words."""
    words, indices = np.unique(value.astype(str), return_inverse=True)
    return Strings(jnp.asarray(indices.reshape(value.shape), np.int32), tuple(words.tolist()))


def needs_indices(arguments: Sequence[Value]) -> bool:
    """Returns whether an operator's inputs mix strings with traced data."""
    if any(isinstance(value, Strings) for value in arguments):
        return True
    return not concrete(*arguments) and any(map(is_string_array, arguments))


def on_indices(node: Node, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function of a node's operator for inputs with `Strings` among them."""
    traits = traits_of(node)

    def move(*arguments: Value, **attributes: Any) -> Any:
        """Moves indices into one list of the words of all inputs."""
        inputs = [encoded(value) if is_string_array(value) else value for value in arguments]
        words = tuple(dict.fromkeys(word for value in inputs if isinstance(value, Strings) for word in value.words))
        index_of = {word: index for index, word in enumerate(words)}

        def indices(value: Value) -> Value:
            if not isinstance(value, Strings):
                return value
            return jnp.asarray([index_of[word] for word in value.words], np.int32)[value.indices]

        results = function(*map(indices, inputs), **attributes)
        return jax.tree.map(lambda result: Strings(result, words), results)

    def map_words(*arguments: Value, **attributes: Any) -> Any:
        """Computes the operator's result for each word, and reads the results at the indices."""
        position, value = next((i, v) for i, v in enumerate(arguments) if isinstance(v, Strings))
        inputs = [v if v is None or i == position else np.reshape(v, ()) for i, v in enumerate(arguments)]
        inputs[position] = np.array(value.words, object)
        table = np.asarray(function(*inputs, **attributes))
        if table.dtype == object:
            results = encoded(table)
            return Strings(results.indices[value.indices], results.words)
        return x64.in_types_of((table, value), lambda: jnp.asarray(table)[value.indices])

    def refuse(*arguments: Value, **attributes: Any) -> Any:
        raise UnsupportedModelError(
            "Strings that depend on traced data are known as indices into a list of words only",
            got=f"{node.op}, which needs the strings themselves",
            fix="call the model operator by operator, model.eager(...), or fix its inputs: model.bind(name=value)",
        )

    if traits.moves_elements:
        return move
    return map_words if traits.reads_each_string else refuse


def decoded(outputs: Any) -> Any:
    """Returns a model's outputs with numpy arrays of strings in place of `Strings`."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf) if isinstance(leaf, Strings) else leaf,
        outputs,
        is_leaf=lambda leaf: isinstance(leaf, Strings),
    )
