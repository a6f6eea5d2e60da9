"""Branches and loops. Conditions that are known while tracing are decided then; others become JAX control flow.

JAX's control flow is traced with 64-bit types on: iterations are counted in int64, and bodies may have any types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError, LimitExceededError, NotStaticError
from modeldiff_jax.limits import check_trips
from modeldiff_jax.models.graph.liveness import release
from modeldiff_jax.models.graph.sizes import is_sizes, traced_sizes
from modeldiff_jax.models.graph.values import Value, axis_index, known
from modeldiff_jax.models.onnx.registration import op
from modeldiff_jax.runtime import x64

Branch = Callable[..., tuple[Value, ...]]

_UNROLLED = 16  # most iterations of a loop that is unrolled, in which each iteration may have other shapes


def _flag(value: Value) -> bool:
    return value is None or bool(np.ravel(value)[0])


def _scalar(value: Value) -> Value:
    return jnp.reshape(x64.as_array(value), ())


def _traced(values: Sequence[Value]) -> tuple[Value, ...]:
    return tuple(v if isinstance(v, tuple) else traced_sizes(v) if is_sizes(v) else x64.as_array(v) for v in values)


@op("If")
def if_(condition: Value, /, *, then_branch: Branch, else_branch: Branch) -> tuple[Value, ...]:
    """Runs one of two branches: only that one if the condition is known, else both under `lax.cond`."""
    if known(condition):
        return then_branch() if _flag(condition) else else_branch()
    branches = (lambda: _traced(then_branch())), (lambda: _traced(else_branch()))
    try:
        return x64.in_64_bits(lambda: jax.lax.cond(_scalar(condition), *branches))
    except TypeError as error:
        raise NotStaticError(
            "Both branches of an If that depends on data must give the same shapes and types",
            got=str(error).splitlines()[0],
            fix="fix the model input the condition comes from: model.bind(name=value)",
        ) from error


class _EndsByDataError(Exception):
    """The condition that a loop's body returns is not a known true, so the number of iterations is not known."""


@op("Loop")
def loop(trips: Value, condition: Value, /, *initial: Value, body: Branch) -> tuple[Value, ...]:
    """Runs `body` up to `trips` times while its condition holds; returns carried values, then stacked scan outputs.

    Short loops, and loops with known conditions, are unrolled; a loop with a known number of iterations becomes
    `lax.scan`; one that ends by traced data becomes `lax.while_loop`, which has no reverse derivative and cannot
    collect scan outputs.
    """
    if not known(trips) or not known(condition):
        return _while(trips, condition, initial, body)
    most = None if trips is None else int(np.ravel(trips)[0])
    if most is not None and most > _UNROLLED and _flag(condition):
        try:
            return _counted(most, initial, body)
        except (_EndsByDataError, NotStaticError):  # the latter: the iteration or a carried value decides a shape
            pass
    try:
        return _unroll(most, condition, initial, body)
    except _EndsByDataError:
        return _while(trips, condition, initial, body)


def _unroll(most: int | None, condition: Value, initial: Sequence[Value], body: Branch) -> tuple[Value, ...]:
    """Runs a loop unrolled, as long as every condition is known."""
    carried, rows = tuple(initial), []
    trip = 0
    while (most is None or trip < most) and _flag(condition):
        check_trips(trip)
        results = body(np.asarray(trip, np.int64), np.asarray(True), *carried)
        if trip:
            release(condition, *carried)
        condition, carried, row = results[0], results[1 : 1 + len(initial)], results[1 + len(initial) :]
        if not known(condition):
            raise _EndsByDataError
        rows.append(row)
        trip += 1
    return *carried, *_stacked(rows, initial, body)


def _stacked(rows: Sequence[tuple[Value, ...]], initial: Sequence[Value], body: Branch) -> tuple[Value, ...]:
    if rows:
        return tuple(
            np.stack(column)
            if all(isinstance(v, np.ndarray) for v in column)
            else x64.in_types_of(column, partial(jnp.stack, column))
            for column in zip(*rows, strict=True)
        )
    try:  # no iteration: empty outputs of the shapes that an iteration would give
        shapes = jax.eval_shape(
            lambda *carried: _traced(body(np.asarray(0), np.asarray(True), *carried)[1 + len(initial) :]),
            *_traced(initial),
        )
    except NotStaticError:
        shapes = ()
    return tuple(np.zeros((0, *s.shape), s.dtype) for s in shapes)


def _counted(trips: int, initial: Sequence[Value], body: Branch) -> tuple[Value, ...]:
    n = len(initial)

    def step(carried: tuple[Value, ...], i: Value) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
        condition, *outputs = body(i, np.asarray(True), *carried)
        if not (isinstance(condition, np.ndarray) and _flag(condition)):
            raise _EndsByDataError
        results = _traced(outputs)
        return _like(results[:n], carried), results[n:]

    try:
        check_trips(trips)
    except LimitExceededError:  # exporters write the largest int64 if the condition alone ends the loop
        x64.in_64_bits(lambda: jax.eval_shape(step, _traced(initial), np.int64(0)))
        raise
    last, rows = x64.in_64_bits(lambda: jax.lax.scan(step, _traced(initial), jnp.arange(trips)))
    return *last, *rows


def _like(new: tuple[Value, ...], old: tuple[Value, ...]) -> tuple[Value, ...]:
    """Returns the carried values in the types that they had before; raises an error if a shape changed."""
    for a, b in zip(new, old, strict=True):
        if jax.tree.map(jnp.shape, a) != jax.tree.map(jnp.shape, b):
            raise NotStaticError(
                "Values that a traced Loop carries must keep their shapes",
                got=f"{jax.tree.map(jnp.shape, b)} becoming {jax.tree.map(jnp.shape, a)}",
                fix="fix the model input that decides the number of iterations: model.bind(name=value)",
            )
    return jax.tree.map(lambda a, b: a.astype(b.dtype), new, old)


def _while(trips: Value, condition: Value, initial: Sequence[Value], body: Branch) -> tuple[Value, ...]:
    n = len(initial)
    most = np.iinfo(np.int64).max if trips is None else _scalar(trips)

    def proceed(state: tuple[Value, ...]) -> Value:
        i, condition, *_ = state
        return condition & (i < most)

    def step(state: tuple[Value, ...]) -> tuple[Value, ...]:
        i, condition, *carried = state
        new_condition, *results = _traced(body(i, condition, *carried))
        if len(results) > n:
            raise NotStaticError(
                "A Loop that collects outputs must have a known number of iterations",
                got=f"{len(results) - n} scan outputs and an end that depends on traced data",
                fix="fix the model input the end comes from: model.bind(name=value)",
            )
        return i + 1, _scalar(new_condition).astype(bool), *_like(tuple(results), tuple(carried))

    def start() -> tuple[Value, ...]:
        first_condition = jnp.asarray(True) if condition is None else _scalar(condition).astype(bool)
        return jnp.asarray(0, np.int64), first_condition, *_traced(initial)

    _, _, *last = x64.in_64_bits(lambda: jax.lax.while_loop(proceed, step, start()))
    return tuple(last)


def _scan(
    values: Sequence[Value],
    body: Branch,
    n_scanned: int,
    input_axes: Sequence[int],
    input_reversed: Sequence[int],
    output_axes: Sequence[int] | None,
    output_reversed: Sequence[int] | None,
) -> tuple[Value, ...]:
    n_states = len(values) - n_scanned
    states, scanned = _traced(values[:n_states]), _traced(values[n_states:])
    axes = list(input_axes) or [0] * n_scanned
    xs = tuple(jnp.moveaxis(x, axis_index(axis, x.ndim), 0) for x, axis in zip(scanned, axes, strict=True))
    backward = list(input_reversed) or [0] * n_scanned
    xs = tuple(jnp.flip(x, 0) if flag else x for x, flag in zip(xs, backward, strict=True))
    lengths = {x.shape[0] for x in xs}
    if len(lengths) != 1:
        raise InvalidInputError("All inputs a Scan goes over have the same length", got=f"lengths {sorted(lengths)}")
    (length,) = lengths
    if isinstance(length, int):
        check_trips(length)

    def step(carried: tuple[Value, ...], x: tuple[Value, ...]) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
        results = _traced(body(*carried, *x))
        return _like(results[:n_states], carried), results[n_states:]

    last, rows = x64.in_64_bits(lambda: jax.lax.scan(step, states, xs))
    backward = list(output_reversed or ()) or [0] * len(rows)
    rows = tuple(jnp.flip(y, 0) if flag else y for y, flag in zip(rows, backward, strict=True))
    axes = list(output_axes or ()) or [0] * len(rows)
    return *last, *(jnp.moveaxis(y, 0, axis_index(axis, y.ndim)) for y, axis in zip(rows, axes, strict=True))


@op("Scan")
def scan_8(
    lengths: Value, /, *values: Value, body: Branch, num_scan_inputs: int, directions: Sequence[int] | None = None
) -> tuple[Value, ...]:
    """Runs `body` over the second axis of the last `num_scan_inputs` inputs, for each example of the first axis."""
    if lengths is not None:
        raise NotStaticError("Scan's sequence lengths are not supported", got="an input `sequence_lens`")

    def of_example(*example: Value) -> tuple[Value, ...]:
        return _scan(example, body, num_scan_inputs, (), tuple(directions or ()), None, None)

    return jax.vmap(of_example)(*_traced(values))


@op("Scan", since=9)
def scan(
    *values: Value,
    body: Branch,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] | None = None,
    scan_input_directions: Sequence[int] | None = None,
    scan_output_axes: Sequence[int] | None = None,
    scan_output_directions: Sequence[int] | None = None,
) -> tuple[Value, ...]:
    """Runs `body` over one axis of the last `num_scan_inputs` inputs, carrying the first ones."""
    return _scan(
        values,
        body,
        num_scan_inputs,
        scan_input_axes or (),
        scan_input_directions or (),
        scan_output_axes,
        scan_output_directions,
    )
