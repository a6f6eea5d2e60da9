"""Reaction functions: from probes to a model's numeric outputs, flattened to a vector for each probe.

Every model is run by `jax.vmap` over single samples (or over the fixed batch it was exported with). That is right for
models whose batch size is fixed, whose state keeps its batch elsewhere than on axis 0, or whose axis 0 is really time,
and makes a reaction independent of its neighbours and of padding. It runs as fast as the batch itself (XLA merges the
axes) and takes up to 15 % longer to compile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from modeldiff_jax.probes.steps import Step
from modeldiff_jax.runtime.compilation import Program
from modeldiff_jax.types import Array, Params


@dataclass(frozen=True)
class Constant:
    """An array that hashes and compares by value."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    data: bytes

    @classmethod
    def of(cls, array: np.ndarray) -> Constant:
        """Returns the constant of an array's value."""
        return cls(array.shape, array.dtype, np.ascontiguousarray(array).tobytes())

    def array(self) -> np.ndarray:
        """Returns the value, read-only."""
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class ReactionFunction:
    """A pure function `function(params, x)` from probes to reactions, to be traced, differentiated, vmapped, compiled.

    It holds no parameters, so equal ones serve every model of one graph: pass it as a static argument of a program.

    Attributes:
      apply: the model's function.
      index: index of the probed input.
      others: values of the other inputs, in declared order.
      batch: samples in one call of `apply`; 0 for a model without batch axis.
      steps: conversion of a probe to a sample.
    """

    apply: Callable[..., Any]
    index: int
    others: tuple[Constant, ...]
    batch: int
    steps: tuple[Step, ...]

    def samples(self, x: Num[Array, "n ..."]) -> Num[Array, "n ..."]:
        """Returns the samples of the model's input that probes become."""

        def convert(probe: Any) -> Any:
            for step in self.steps:
                probe = step(probe)
            return jnp.asarray(probe)

        return jax.vmap(convert)(x)

    def inputs(self, probed: Any) -> list[Any]:
        """Returns all inputs of the model in declared order, given the value of the probed one."""
        values: list[Any] = [other.array() for other in self.others]
        values.insert(self.index, probed)
        return values

    def __call__(self, params: Params, x: Num[Array, "n ..."]) -> Float[jax.Array, "n c"]:
        """Returns the reactions to probes, float32."""
        n, size = x.shape[0], max(self.batch, 1)
        groups = -(-n // size)
        samples = self.samples(x)
        if groups * size != n:
            samples = samples[jnp.minimum(jnp.arange(groups * size), n - 1)]

        def run(group: Any) -> Any:
            outputs = self.apply(params, *self.inputs(group if self.batch else group[0]))
            return jnp.concatenate([jnp.reshape(leaf, (size, -1)) for leaf in reaction_outputs(outputs)], axis=1)

        rows = jax.vmap(run)(samples.reshape(groups, size, *samples.shape[1:]))
        return rows.reshape(groups * size, -1)[:n]


def numeric_outputs(leaves: list[Any]) -> list[Any]:
    """Returns the outputs that reactions are made of: all float ones, or all integer ones where none is float."""
    floats = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return floats or [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.integer) or leaf.dtype == bool]


def reaction_outputs(outputs: Any) -> list[Any]:
    """Returns the outputs that reactions are made of, as float32."""
    return [leaf.astype(jnp.float32) for leaf in numeric_outputs(jax.tree.leaves(outputs))]


react = Program(ReactionFunction.__call__, static_argnums=0)
"""`react(function, params, x)`, compiled."""
react_stacked = Program(
    lambda function, stacked, x: jax.lax.map(lambda params: function(params, x), stacked), static_argnums=0
)
"""`react_stacked(function, stacked, x)`: reactions under each of the parameters stacked along axis 0, compiled."""
to_samples = Program(ReactionFunction.samples, static_argnums=0)
"""`to_samples(function, x)`, compiled."""
