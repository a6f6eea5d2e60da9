"""Wraps a Flax module, linen or nnx, and its variables as a `Model`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.identity import depends_on_first, params_digest
from modeldiff_jax.models.inputs.specs import SpecLike, placeholders, to_specs
from modeldiff_jax.models.model import Model
from modeldiff_jax.models.traced import arrays_on_device, shared, traced_model
from modeldiff_jax.models.weights import load_weights
from modeldiff_jax.types import Params, TensorSpec


def from_flax(
    module: Any,
    variables: Any,
    input_spec: SpecLike,
    *,
    method: str | Callable[..., Any] | None = None,
    call_kwargs: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Model:
    """Makes a model of a Flax module in inference mode, in which no variable is updated.

    Models of equal modules share one `apply`, so they compile once. Variables that a module updates in its call (a
    counter of random draws, a cache, a recorded activation) start at the same values in each call.

    Args:
      module: a `flax.linen.Module`, or a `flax.nnx.Module`, which is copied and set to evaluation mode.
      variables: linen: all collections, `{"params": ..., "batch_stats": ...}`. nnx: None, or a state for the module.
        Either: arrays by dotted names, as `load_weights` returns them (`params.Dense_0.kernel`; if no name begins
        with a collection, all are `params`; nnx: `conv.kernel`), or the path of a file that `load_weights` reads.
      input_spec: a shape (None or a name for a dynamic axis; float32), a `jax.ShapeDtypeStruct`, a `TensorSpec`, or a
        sequence of these for several inputs, which are passed by position.
      method: method to call instead of `__call__`: a name, or a function that takes the module first.
      call_kwargs: further arguments of the call, such as `{"train": False}`.
      name: for reports; the module's class name if None.
    Returns:
      The model. Outputs that are lists, tuples or dictionaries become a tuple, dictionaries in order of their keys.
    Raises:
      InvalidInputError: not a Flax module, or it cannot run with these variables and inputs.
    """
    from flax import linen, nnx

    where = name or type(module).__name__
    if isinstance(variables, str | os.PathLike):
        variables = load_weights(variables)
    inputs = to_specs(input_spec, "input")
    kwargs = tuple(sorted((call_kwargs or {}).items()))
    make: Callable[..., Callable[..., Any]]
    key: tuple[Any, ...]
    if isinstance(module, linen.Module):
        form, params = "flax-linen", _linen_params(variables, where)
        make, key = _linen_run, (module, method, kwargs)
    elif isinstance(module, nnx.Module):
        form = "flax-nnx"
        params, key = _nnx_parts(module, variables, inputs, method, kwargs, where)
        make = _nnx_run
    else:
        raise InvalidInputError(
            "`module` is a flax.linen.Module or a flax.nnx.Module",
            got=f"{type(module).__module__}.{type(module).__name__}",
            where="from_flax",
            fix="wrap anything else with from_callable",
        )
    return traced_model(
        shared(make, *key),
        params,
        inputs,
        path=where,
        form=form,
        rule="The module must run with these variables on inputs of these specs",
        fix="check `variables` (every collection), `input_spec` and `call_kwargs`, {'train': False} say",
    )


def _linen_params(variables: Any, where: str) -> Params:
    from flax import core, linen

    if not isinstance(variables, Mapping):
        raise InvalidInputError(
            "`variables` of a linen module is a dictionary of collections",
            got=type(variables).__name__,
            where=where,
            fix="pass what `module.init` returned, trained: {'params': ...}",
        )
    if _by_dotted_names(variables):
        tree = _nested(variables, where)
        variables = tree if "params" in tree else {"params": tree}
    return arrays_on_device(linen.meta.unbox(core.unfreeze(dict(variables))), where)


def _by_dotted_names(variables: Any) -> bool:
    return isinstance(variables, Mapping) and any(
        isinstance(leaf, np.ndarray | jax.Array) for leaf in variables.values()
    )


def _nested(weights: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns arrays by dotted names as nested dictionaries."""
    tree: dict[str, Any] = {}
    for name, array in weights.items():
        *parents, last = name.split(".")
        node: Any = tree
        for parent in parents:
            node = node.setdefault(parent, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last in node:
            raise InvalidInputError("No weight's name is the beginning of another's", got=name, where=where)
        node[last] = array
    return tree


def _linen_run(module: Any, method: Any, kwargs: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    def run(params: Params, *inputs: Any) -> Any:
        return module.apply(params, *inputs, method=method, **dict(kwargs))

    return run


def _nnx_parts(
    module: Any,
    variables: Any,
    inputs: tuple[TensorSpec, ...],
    method: Any,
    kwargs: tuple[tuple[str, Any], ...],
    where: str,
) -> tuple[Params, tuple[Any, ...]]:
    """Returns the weights by path, and a key of everything else: models with equal keys are one function."""
    from flax import nnx

    copy = nnx.clone(module)  # so that neither mode nor state of the caller's module changes
    if variables is not None:
        if _by_dotted_names(variables):
            variables = _nnx_state(copy, variables, where)
        try:
            nnx.update(copy, variables)
        except Exception as error:
            raise InvalidInputError(
                "`variables` of an nnx module is None or its state", got=str(error), where=where
            ) from error
    copy.eval()
    graph, *states = nnx.split(copy, nnx.RngState, ...)
    random, state = states
    leaves, tree = jax.tree_util.tree_flatten_with_path(state)
    names = tuple(jax.tree_util.keystr(path) for path, _ in leaves)
    params = arrays_on_device({name: leaf for name, (_, leaf) in zip(names, leaves, strict=True)}, where)
    call = _nnx_call(graph, tree, names, method, kwargs)
    try:
        used = depends_on_first(call, random, params, *placeholders(inputs))
    except Exception:  # a user's module may raise anything; `traced_model` raises it again and reports it
        used = False
    return params, (graph, tree, names, _RandomState(random, used), method, kwargs)


def _nnx_state(module: Any, weights: Mapping[str, Any], where: str) -> Any:
    """Returns the module's state with its values replaced by the weights, which have the same names and shapes."""
    from flax import nnx

    state = nnx.state(module, nnx.Not(nnx.RngState))
    unused = dict(weights)

    def replaced(path: tuple[Any, ...], leaf: Any) -> Any:
        name = ".".join(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path)
        name = name.removesuffix(".value")  # the field of the variable
        if name not in unused or np.shape(unused[name]) != np.shape(leaf):
            got = f"shape {np.shape(unused[name])}" if name in unused else "none of that name"
            raise InvalidInputError(f"The weights hold `{name}` of shape {np.shape(leaf)}", got=got, where=where)
        return unused.pop(name)

    loaded = jax.tree_util.tree_map_with_path(replaced, state)
    if unused:
        raise InvalidInputError("Every weight belongs to the module", got=", ".join(sorted(unused)), where=where)
    return loaded


class _RandomState:
    """The random state of an nnx module in a cache key; it counts only if the outputs depend on it.

    In evaluation mode most modules have it for dropout alone, so that modules with other seeds are one function.
    """

    def __init__(self, value: Any, used: bool) -> None:
        self.value = value
        self._digest = params_digest(value) if used else ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _RandomState) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)


def _nnx_run(
    graph: Any,
    tree: Any,
    names: tuple[str, ...],
    random: _RandomState,
    method: Any,
    kwargs: tuple[tuple[str, Any], ...],
) -> Callable[..., Any]:
    call = _nnx_call(graph, tree, names, method, kwargs)

    def run(params: Params, *inputs: Any) -> Any:
        return call(random.value, params, *inputs)

    return run


def _nnx_call(
    graph: Any, tree: Any, names: tuple[str, ...], method: Any, kwargs: tuple[tuple[str, Any], ...]
) -> Callable[..., Any]:
    from flax import nnx

    def call(random: Any, params: Params, *inputs: Any) -> Any:
        state = jax.tree.unflatten(tree, [params[name] for name in names])
        # copies, because Flax refuses to update a variable from outside in a function that is traced
        module = nnx.merge(graph, random, state, copy=True)
        if callable(method):
            return method(module, *inputs, **dict(kwargs))
        return getattr(module, method or "__call__")(*inputs, **dict(kwargs))

    return call
