"""Makes a `Model` of a function that JAX traces: a Flax module's or a user's."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.files import to_device
from modeldiff_jax.models.identity import content_digest, params_digest, program_digest
from modeldiff_jax.models.inputs.specs import placeholders, traced_outputs
from modeldiff_jax.models.model import Model, Origin
from modeldiff_jax.types import Apply, Params, TensorSpec


def traced_model(
    run: Callable[..., Any], params: Params, inputs: tuple[TensorSpec, ...], path: str, form: str, rule: str, fix: str
) -> Model:
    """Makes a model of `run(params, *inputs)`, whose result is any pytree of arrays.

    Args:
      run: traceable. Models of one `run` share one `apply`, so they compile once.
      params: pytree of arrays on a device.
      inputs: specs of the inputs.
      path, form: for the model's `Origin`.
      rule, fix: of the error, where `run` cannot be traced.
    Raises:
      InvalidInputError: `run` raised, or its outputs depend on the batch size in number or rank.
    """
    try:
        outputs = traced_outputs(run, (params,), inputs)
        program = program_digest(run, params, *placeholders(inputs))
    except Exception as error:  # a user's function may raise anything
        raise InvalidInputError(
            rule,
            got=f"{type(error).__name__}: {str(error).strip()}",
            where=f"{path} on {'; '.join(map(str, inputs))}",
            fix=fix,
        ) from error
    sha256 = params_digest(params) if jax.tree.leaves(params) else ""
    return Model(
        shared(_flat, run), params, inputs, outputs, Origin(path, form, sha256, content_digest(sha256, program))
    )


def shared(make: Callable[..., Callable[..., Any]], *key: Any) -> Callable[..., Any]:
    """Returns `make(*key)`: the same function for equal keys, unless a key cannot be hashed."""
    try:
        return _cached(make, key)
    except TypeError:  # without a hash there is no way to see whether two keys are equal
        return make(*key)


def arrays_on_device(tree: Any, where: str) -> Any:
    """Returns a pytree of numbers and arrays as arrays on the default device that share no writeable memory.

    Raises:
      InvalidInputError: a leaf is no array.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | int | float):
            place = f"{where}{jax.tree_util.keystr(path)}"
            raise InvalidInputError("Variables are arrays", got=type(leaf).__name__, where=place)
    return jax.tree.map(_on_device, tree)


def _on_device(leaf: Any) -> jax.Array:
    mutable = isinstance(leaf, np.ndarray) and leaf.flags.writeable
    return to_device(jnp.array(leaf) if mutable else leaf)


@lru_cache(maxsize=256)
def _cached(make: Callable[..., Callable[..., Any]], key: tuple[Any, ...]) -> Callable[..., Any]:
    return make(*key)


def _flat(run: Callable[..., Any]) -> Apply:
    def apply(params: Params, *inputs: Any) -> Any:
        leaves = jax.tree.leaves(run(params, *inputs))
        return leaves[0] if len(leaves) == 1 else tuple(leaves)

    return apply
