"""Wraps a Python callable as a `Model`: a black box, such as a remote service, or a function that JAX can trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.inputs.specs import SpecLike, to_specs
from modeldiff_jax.models.model import Model, Origin
from modeldiff_jax.models.traced import arrays_on_device, shared, traced_model
from modeldiff_jax.types import Params, Shape, TensorSpec

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0  # seconds before a call is repeated; each wait is twice the one before


def from_callable(
    fn: Callable[..., Any],
    input_spec: SpecLike,
    *,
    output_spec: SpecLike | None = None,
    name: str | None = None,
    retries: int = 0,
    traceable: bool = False,
    params: Params | None = None,
) -> Model:
    """Makes a model of a Python callable.

    By default the model is a black box: it is only ever called, so it has no gradients and no weights. A function of
    JAX operations keeps both with `traceable=True`:

        md.from_callable(apply, (None, 28, 28, 1), traceable=True, params=params)   # called as apply(params, images)

    Args:
      fn: called with one array per input, batch first: copies as numpy arrays, or traced JAX arrays if `traceable`. It
        returns an array, nested lists of numbers (one array), or several arrays in a list, a tuple or a dictionary
        (taken in order of its keys).
      input_spec: a shape (None or a name for a dynamic axis; float32), a `jax.ShapeDtypeStruct`, a `TensorSpec`, or a
        sequence of these for several inputs.
      output_spec: likewise, to check the results of `fn`; if None, the outputs of a black box are unknown until it is
        called, and the model's `outputs` are empty.
      name: for reports and messages; the function's `__name__` if None.
      retries: how many times a call of a black box is repeated after it raised, 1, 2, 4 and so on to at most 30 seconds
        later. Every error is retried, since temporary ones cannot be distinguished from others.
      traceable: `fn` is a pure function of JAX operations: it is traced, compiled, and differentiated where probes need
        gradients. Arrays that it closes over become part of the compiled program; give large ones as `params`.
      params: for a traceable function: pytree of arrays, given to `fn` before the inputs. Models of one function and
        different `params` are compiled once.
    Returns:
      The model. Calling a black box raises `InvalidInputError` if `fn` fails or returns anything but numeric arrays
      that keep the batch size.
    Raises:
      InvalidInputError: `fn` cannot be called, a spec is invalid, or a traceable function cannot be traced or returns
        other outputs than declared.
    """
    if not callable(fn):
        raise InvalidInputError("`fn` is a callable", got=type(fn).__name__, where="from_callable")
    where = name or str(getattr(fn, "__name__", type(fn).__name__))
    inputs = to_specs(input_spec, "input")
    outputs = () if output_spec is None else to_specs(output_spec, "output")
    if traceable:
        if retries:
            raise InvalidInputError("`retries` are for black boxes", got="a traceable function", where="from_callable")
        return _traced(fn, params, inputs, outputs, where)
    if params is not None:
        raise InvalidInputError(
            "`params` are for traceable functions", got="a black box", where="from_callable", fix="set traceable=True"
        )
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise InvalidInputError("`retries` is a number of calls", got=repr(retries), where="from_callable")

    def apply(_: Params, *arrays: Any) -> Any:
        returned = _call(fn, arrays, inputs, retries, where)
        results = tuple(_number_array(value, label, where) for label, value in _outputs_in(returned, len(outputs)))
        if not results:
            raise InvalidInputError("The callable must give at least one array", got=repr(returned), where=where)
        batch = next((a.shape[0] for a, s in zip(arrays, inputs, strict=True) if _is_batched(s)), None)
        for i, result in enumerate(results):
            if batch is not None and result.shape[:1] != (batch,):
                raise InvalidInputError(
                    f"The callable must give one row for each of its {batch} inputs",
                    got=f"output {i} of shape {result.shape}",
                    where=where,
                    fix="if it gives one array per input, put them together with np.stack",
                )
        if outputs:
            _check_declared([result.shape for result in results], outputs, where)
        return results[0] if len(results) == 1 else results

    return Model(apply, {}, inputs, outputs, Origin(where, "callable"), traceable=False)


def _traced(
    fn: Callable[..., Any],
    params: Params | None,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    where: str,
) -> Model:
    model = traced_model(
        shared(_run, fn, params is not None),
        {} if params is None else arrays_on_device(params, where),
        inputs,
        path=where,
        form="jax",
        rule="JAX must be able to trace the function on inputs of these specs",
        fix="use jax.numpy in it and no side effects, check `input_spec` and `params`, or leave `traceable` out",
    )
    if outputs:
        _check_declared([spec.shape for spec in model.outputs], outputs, where)
    return model


def _run(fn: Callable[..., Any], takes_params: bool) -> Callable[..., Any]:
    return fn if takes_params else lambda _, *inputs: fn(*inputs)


def _call(
    fn: Callable[..., Any], arrays: tuple[Any, ...], inputs: tuple[TensorSpec, ...], retries: int, where: str
) -> Any:
    """Calls a black box on copies of the arrays, and up to `retries` more times while it raises."""
    attempt = 0
    while True:
        try:
            return fn(*(np.array(array, spec.dtype) for array, spec in zip(arrays, inputs, strict=True)))
        except Exception as error:  # a user's function may raise anything
            if attempt == retries:
                raise InvalidInputError(
                    "The callable must answer",
                    got=f"{type(error).__name__}: {error}" + (f", in call {attempt + 1}" if attempt else ""),
                    where=where,
                    fix="temporary errors, such as those of a busy service, can be waited out: retries=5",
                ) from error
        time.sleep(min(_FIRST_WAIT * 2**attempt, _LONGEST_WAIT))
        attempt += 1


def _outputs_in(returned: Any, declared: int) -> list[tuple[str, Any]]:
    """Returns the outputs in a callable's result, each with a label for messages."""
    if isinstance(returned, Mapping):
        return [(f"output {key!r}", returned[key]) for key in sorted(returned, key=str)]
    several = isinstance(returned, tuple) or (
        isinstance(returned, list) and (declared > 1 or (declared == 0 and any(map(_is_array, returned))))
    )
    return [(f"output {i}", value) for i, value in enumerate(returned)] if several else [("output", returned)]


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | jax.Array) and value.ndim > 0


def _is_batched(spec: TensorSpec) -> bool:
    return len(spec.shape) > 0 and isinstance(spec.shape[0], str)


def _number_array(value: Any, label: str, where: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:  # ragged nesting
        raise _not_numbers(label, "rows of different lengths", where) from None
    if array.dtype.kind not in "biuf" and array.dtype.name not in ("bfloat16", "float16"):
        got = "None" if value is None else f"{type(value).__name__} of dtype {array.dtype}"
        raise _not_numbers(label, got, where)
    return array


def _not_numbers(label: str, got: str, where: str) -> InvalidInputError:
    return InvalidInputError(
        "The callable must give arrays of real numbers",
        got=f"{label}: {got}",
        where=where,
        fix="return scores as an array of shape (batch, classes)",
    )


def _check_declared(shapes: Sequence[Shape], outputs: tuple[TensorSpec, ...], where: str) -> None:
    if len(shapes) != len(outputs):
        raise InvalidInputError(
            f"The callable must give the {len(outputs)} declared outputs", got=f"{len(shapes)}", where=where
        )
    for shape, spec in zip(shapes, outputs, strict=True):
        fits = len(shape) == len(spec.shape) and all(
            isinstance(dim, str) or dim == size for dim, size in zip(spec.shape, shape, strict=True)
        )
        if not fits:
            raise InvalidInputError(f"The callable must give {spec}", got=f"shape {shape}", where=where)
