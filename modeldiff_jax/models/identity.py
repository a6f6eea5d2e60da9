"""Hashes that identify models which have no file: of their parameters, and of the program that reads them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr, dce_jaxpr_consts

from modeldiff_jax.types import Params

_ADDRESS = re.compile(r"0x[0-9a-f]+")


def params_digest(params: Params) -> str:
    """Returns the SHA-256 of a parameter tree: path, dtype, shape and little-endian bytes of each leaf, by path."""
    digest = hashlib.sha256()
    for path, leaf in sorted((jax.tree_util.keystr(p), x) for p, x in jax.tree_util.tree_leaves_with_path(params)):
        array = _values(leaf)
        little = array.astype(array.dtype.newbyteorder("<"), copy=False) if array.dtype.kind in "iufc" else array
        digest.update(f"{path}\0{array.dtype.name}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(little).tobytes())
    return digest.hexdigest()


def program_digest(function: Callable[..., Any], *arguments: Any) -> str:
    """Returns the SHA-256 of a traced function: its jaxpr without memory addresses, and the arrays it closes over.

    Operations and arrays that the outputs do not depend on are left out.

    Args:
      function: traceable.
      *arguments: arrays or `jax.ShapeDtypeStruct`s to trace it on.
    """
    traced = jax.make_jaxpr(function)(*arguments)
    jaxpr, used, _ = dce_jaxpr_consts(traced.jaxpr, [True] * len(traced.jaxpr.outvars))
    constants = [value for value, counts in zip(traced.consts, used, strict=True) if counts]
    text = "\n".join([_ADDRESS.sub("0x", str(jaxpr)), params_digest(constants)])
    return hashlib.sha256(text.encode()).hexdigest()


def depends_on_first(function: Callable[..., Any], *arguments: Any) -> bool:
    """Returns whether the outputs of a traceable function depend on its first argument, a pytree of arrays."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    _, used = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return any(used[: len(jax.tree.leaves(arguments[0]))])


def content_digest(params_sha256: str, program_sha256: str) -> str:
    """Returns the identity of a model without a file, as `Origin.content_sha256` defines it."""
    return hashlib.sha256("\n".join(["modeldiff-program-1", params_sha256, program_sha256]).encode()).hexdigest()


def _values(leaf: Any) -> np.ndarray:
    """Returns the numbers in a leaf, which may be a random key."""
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)
