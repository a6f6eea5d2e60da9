"""Any Python callable, numpy in and numpy out -> `Model`: a black box. A remote API fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.inputs.specs import SpecLike, to_specs
from modeldiff_jax.models.model import Model, Origin
from modeldiff_jax.types import Params, TensorSpec


def from_callable(
    fn: Callable[..., Any],
    input_spec: SpecLike,
    *,
    output_spec: SpecLike | None = None,
    name: str | None = None,
) -> Model:
    """A black-box model: it is only ever called, so it has no gradients and no weights.

    Args:
      fn: called with one numpy array per input, each its own copy, batch first. It gives an array, nested lists of
        numbers (one array), or several arrays in a list, a tuple or a dictionary (taken in order of its keys).
      input_spec: a shape (None or a name for a dynamic axis; float32), a `jax.ShapeDtypeStruct`, a `TensorSpec`, or a
        sequence of these for several inputs.
      output_spec: likewise, to check what `fn` gives; if None, outputs are unknown until it is called and the
        model's `outputs` are empty.
      name: for reports and messages; the function's own name if None.
    Returns:
      The model. Calling it raises `InvalidInputError` where `fn` fails or gives anything but numeric arrays that keep
      the batch size.
    Raises:
      InvalidInputError: `fn` cannot be called, or a spec is none.
    """
    if not callable(fn):
        raise InvalidInputError("`fn` is a callable", got=type(fn).__name__, where="from_callable")
    where = name or str(getattr(fn, "__name__", type(fn).__name__))
    inputs = to_specs(input_spec, "input")
    outputs = () if output_spec is None else to_specs(output_spec, "output")

    def apply(params: Params, *arrays: Any) -> Any:
        copies = [np.array(array, spec.dtype) for array, spec in zip(arrays, inputs, strict=True)]
        try:
            given = fn(*copies)
        except Exception as error:  # whatever a stranger's function raises
            raise InvalidInputError(
                "The callable must answer", got=f"{type(error).__name__}: {error}", where=where
            ) from error
        results = tuple(_number_array(value, label, where) for label, value in _parts(given, len(outputs)))
        if not results:
            raise InvalidInputError("The callable must give at least one array", got=repr(given), where=where)
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
            _check_declared(results, outputs, where)
        return results[0] if len(results) == 1 else results

    return Model(apply, {}, inputs, outputs, Origin(where, "callable"), traceable=False)


def _parts(given: Any, declared: int) -> list[tuple[str, Any]]:
    """The outputs in what a callable gave, each with a label for messages."""
    if isinstance(given, Mapping):
        return [(f"output {key!r}", given[key]) for key in sorted(given, key=str)]
    several = isinstance(given, tuple) or (
        isinstance(given, list) and (declared > 1 or (declared == 0 and any(_is_array(part) for part in given)))
    )
    return [(f"output {i}", part) for i, part in enumerate(given)] if several else [("output", given)]


def _is_array(part: Any) -> bool:
    return isinstance(part, np.ndarray | jax.Array) and part.ndim > 0


def _is_batched(spec: TensorSpec) -> bool:
    return len(spec.shape) > 0 and isinstance(spec.shape[0], str)


def _number_array(value: Any, label: str, where: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:  # ragged nesting
        raise _not_numbers(label, "rows of different lengths", where) from None
    if array.dtype.kind not in "biuf" and array.dtype.name not in ("bfloat16", "float16"):
        what = "None" if value is None else f"{type(value).__name__} of dtype {array.dtype}"
        raise _not_numbers(label, what, where)
    return array


def _not_numbers(label: str, got: str, where: str) -> InvalidInputError:
    return InvalidInputError(
        "The callable must give arrays of real numbers",
        got=f"{label}: {got}",
        where=where,
        fix="return scores as an array of shape (batch, classes)",
    )


def _check_declared(results: tuple[np.ndarray, ...], outputs: tuple[TensorSpec, ...], where: str) -> None:
    if len(results) != len(outputs):
        raise InvalidInputError(
            f"The callable must give the {len(outputs)} declared outputs", got=f"{len(results)}", where=where
        )
    for result, spec in zip(results, outputs, strict=True):
        fits = result.ndim == len(spec.shape) and all(
            isinstance(dim, str) or dim == size for dim, size in zip(spec.shape, result.shape, strict=True)
        )
        if not fits:
            raise InvalidInputError(f"The callable must give {spec}", got=f"shape {result.shape}", where=where)
