"""64-bit types inside a program, whether or not the process has them on.

JAX keeps int64 and float64 out unless `jax_enable_x64` is set, which would change the default types of everything else
in the process; so the mode is switched on around single pieces of a program. That alone is not enough: `jit` lowers,
`vmap` rewrites and `grad` transposes a piece after it was traced, when the mode is off again, and many rules of JAX's
primitives then make 32-bit constants for 64-bit operands. A piece is therefore one primitive, `x64`, whose every rule
switches the mode on for what it does. XLA sees the operations inside, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import ad, batching, mlir

T = TypeVar("T")
_WIDE = frozenset(map(np.dtype, (np.int64, np.uint64, np.float64, np.complex128)))
_INT32 = np.iinfo(np.int32)


def is_64_bit(dtype: Any) -> bool:
    """Returns whether JAX narrows a type outside of 64-bit mode: int64, uint64, float64 and complex128."""
    return np.dtype(dtype) in _WIDE


def as_array(x: Any, dtype: Any = None) -> jax.Array:
    """Returns a JAX array as `jnp.asarray` does, but keeps 64-bit types.

    Args:
      x: array-like, of numpy's or JAX's types.
      dtype: of the result; None for that of `x`.
    """
    if isinstance(x, jax.Array):
        if dtype is None or x.dtype == dtype:
            return x
        with jax.enable_x64(True) if is_64_bit(x.dtype) or is_64_bit(dtype) else nullcontext():
            return jnp.asarray(x, dtype)
    array = np.asarray(x, dtype)
    with jax.enable_x64(True) if is_64_bit(array.dtype) else nullcontext():
        return jax.device_put(array)  # explicitly, as `jax.transfer_guard("disallow")` requires


def saturated(x: Any) -> Any:
    """Returns 64-bit integers as int32, those beyond its range as its ends; anything else as it is.

    An index then stays within or beyond its axis, and the end of a slice that exceeds every size still does.
    """
    if x is None or not np.issubdtype(x.dtype, np.integer) or x.dtype.itemsize < 8:
        return x
    low = max(_INT32.min, np.iinfo(x.dtype).min)
    if isinstance(x, np.ndarray):
        return np.clip(x, low, _INT32.max).astype(np.int32)
    with jax.enable_x64(True):
        least, most = (jnp.asarray(end, x.dtype) for end in (low, _INT32.max))
        return jax.lax.clamp(least, x, most).astype(np.int32)


def in_64_bits(function: Callable[[], T]) -> T:
    """Traces a function in 64-bit mode as one piece of the program around it.

    Args:
      function: takes no arguments; it may read traced values from its surroundings.
    Returns:
      The function's result, any pytree. Leaves that are no JAX arrays are returned as they are.
    """
    if jax.dtypes.canonicalize_dtype(np.int64) == np.int64:  # the process has 64-bit types
        return function()
    structure: list[Any] = []

    def arrays() -> list[Any]:
        leaves, tree = jax.tree.flatten(function())
        structure[:] = leaves, tree
        return [leaf for leaf in leaves if isinstance(leaf, jax.Array)]

    with jax.enable_x64(True):
        piece, operands = _Piece.lifting(jax.make_jaxpr(arrays)())
    results = iter(_x64.bind(*operands, piece=piece))
    leaves, tree = structure
    return jax.tree.unflatten(tree, [next(results) if isinstance(leaf, jax.Array) else leaf for leaf in leaves])


def in_types_of(values: Any, function: Callable[[], T]) -> T:
    """Calls a function, in 64-bit mode if one of the values it computes with has a 64-bit type.

    Args:
      values: any pytree; all that the function computes with.
      function: as for `in_64_bits`. Where no value is traced it is evaluated at once.
    """
    leaves = jax.tree.leaves(values)
    if not any(is_64_bit(leaf.dtype) for leaf in leaves if hasattr(leaf, "dtype")):
        return function()
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return in_64_bits(function)
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        return function()


class _Piece:
    """A traced function of arrays, as a parameter of the primitive."""

    def __init__(self, jaxpr: Any) -> None:
        self.jaxpr = jaxpr
        self._call = core.jaxpr_as_fun(jaxpr)

    @classmethod
    def of(cls, function: Callable[..., Any], *arguments: Any) -> _Piece:
        return cls(jax.make_jaxpr(function)(*arguments))

    @classmethod
    def lifting(cls, closed: Any) -> tuple[_Piece, list[Any]]:
        """Returns a piece whose arguments are the traced values that were read from outside, and those values."""
        jaxpr = closed.jaxpr
        pairs = list(zip(jaxpr.constvars, closed.consts, strict=True))
        outer = [(var, value) for var, value in pairs if isinstance(value, jax.core.Tracer)]
        inner = [(var, value) for var, value in pairs if not isinstance(value, jax.core.Tracer)]
        opened = jaxpr.replace(
            constvars=[var for var, _ in inner],
            invars=[var for var, _ in outer],
            debug_info=jaxpr.debug_info._replace(arg_names=None),
        )
        return cls(core.ClosedJaxpr(opened, [value for _, value in inner])), [value for _, value in outer]

    @property
    def results(self) -> list[Any]:
        return list(self.jaxpr.out_avals)

    def __call__(self, *arguments: Any) -> list[Any]:
        return list(self._call(*arguments))

    def __repr__(self) -> str:
        return str(self.jaxpr)


_x64 = core.Primitive("x64")
_x64.multiple_results = True


def _evaluate(*arguments: Any, piece: _Piece) -> list[Any]:
    with jax.enable_x64(True):
        return piece(*arguments)


def _abstract(*avals: Any, piece: _Piece) -> list[Any]:
    return piece.results


def _lower(context: Any, *arguments: Any, piece: _Piece) -> Any:
    sizes = context.dim_var_values  # of symbolic shapes, in the integers of the mode around
    given = jax.core.ShapedArray((), jax.dtypes.canonicalize_dtype(np.int64))
    with jax.enable_x64(True):
        if sizes:
            wide = jax.core.ShapedArray((), np.int64)
            widen = mlir.lower_fun(lambda *values: [value.astype(np.int64) for value in values], multiple_results=True)
            n = len(sizes)
            context = context.replace(
                dim_var_values=widen(context.replace(avals_in=[given] * n, avals_out=[wide] * n), *sizes)
            )
        return mlir.lower_fun(piece, multiple_results=True)(context, *arguments)


def _batch(arguments: Sequence[Any], axes: Sequence[Any], *, piece: _Piece) -> tuple[list[Any], list[int]]:
    with jax.enable_x64(True):
        mapped = _Piece.of(jax.vmap(piece, in_axes=tuple(axes)), *arguments)
    return _x64.bind(*arguments, piece=mapped), [0] * len(piece.results)


def _differentiate(primals: Sequence[Any], tangents: Sequence[Any], *, piece: _Piece) -> tuple[list[Any], list[Any]]:
    """Returns the results and their tangents, which are a second piece, linear in the tangents given."""
    results = _x64.bind(*primals, piece=piece)
    moving = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, ad.Zero)]
    moved = [i for i, aval in enumerate(piece.results) if jnp.issubdtype(aval.dtype, jnp.inexact)]
    motions = [ad.Zero(aval.to_tangent_aval()) for aval in piece.results]
    if moving and moved:

        def motion(primals: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
            def of_moving(*values: Any) -> list[Any]:
                results = piece(*_with(primals, dict(zip(moving, values, strict=True))))
                return [results[i] for i in moved]

            return jax.jvp(of_moving, tuple(primals[i] for i in moving), tuple(tangents))[1]

        given = [tangents[i] for i in moving]
        with jax.enable_x64(True):
            linear = _Piece.of(lambda *all_: motion(all_[: len(primals)], all_[len(primals) :]), *primals, *given)
        motions = _with(motions, dict(zip(moved, _x64.bind(*primals, *given, piece=linear), strict=True)))
    return results, motions


def _transpose(cotangents: Sequence[Any], *arguments: Any, piece: _Piece) -> list[Any]:
    linear = [i for i, argument in enumerate(arguments) if ad.is_undefined_primal(argument)]
    fixed = [argument for i, argument in enumerate(arguments) if i not in linear]
    present = [i for i, cotangent in enumerate(cotangents) if not isinstance(cotangent, ad.Zero)]
    if not present:
        return [ad.Zero(argument.aval) if i in linear else None for i, argument in enumerate(arguments)]

    def back(*given: Any) -> Any:
        fixed_values = iter(given[: len(fixed)])
        start = [None if i in linear else next(fixed_values) for i in range(len(arguments))]

        def forward(*values: Any) -> list[Any]:
            results = piece(*_with(start, dict(zip(linear, values, strict=True))))
            return [results[i] for i in present]

        avals = (arguments[i].aval for i in linear)
        structs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
        return jax.linear_transpose(forward, *structs)(list(given[len(fixed) :]))

    given = [*fixed, *(cotangents[i] for i in present)]
    with jax.enable_x64(True):
        backward = _Piece.of(back, *given)
    transposed = dict(zip(linear, _x64.bind(*given, piece=backward), strict=True))
    return [transposed.get(i) for i in range(len(arguments))]


def _with(values: Sequence[Any], new: dict[int, Any]) -> list[Any]:
    return [new.get(i, value) for i, value in enumerate(values)]


_x64.def_impl(_evaluate)
_x64.def_abstract_eval(_abstract)
mlir.register_lowering(_x64, _lower)
batching.primitive_batchers[_x64] = _batch
ad.primitive_jvps[_x64] = _differentiate
ad.primitive_transposes[_x64] = _transpose
