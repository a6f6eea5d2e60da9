"""Recurrent layers: one matrix product for all steps' inputs, then `lax.scan` over the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.graph.values import HIGHEST, Value, in_float32
from modeldiff_jax.models.onnx.ops.activation import elu, hard_sigmoid, leaky_relu
from modeldiff_jax.models.onnx.registration import op

Activation = Callable[[Value], Value]
Carry = tuple[Value, ...]
Step = Callable[[Carry, Value], Carry]
Product = Callable[[Value], Value]
"""Multiplies inputs or states by the weights of one direction."""

# name -> function of (x, alpha, beta), default alpha, default beta; `None` for a parameter that it does not have
_ACTIVATIONS: dict[str, tuple[Callable[[Value, Any, Any], Value], float | None, float | None]] = {
    "relu": (lambda x, a, b: jax.nn.relu(x), None, None),
    "tanh": (lambda x, a, b: jnp.tanh(x), None, None),
    "sigmoid": (lambda x, a, b: jax.nn.sigmoid(x), None, None),
    "softsign": (lambda x, a, b: x / (1 + jnp.abs(x)), None, None),
    "softplus": (lambda x, a, b: jax.nn.softplus(x), None, None),
    "affine": (lambda x, a, b: a * x + b, 1.0, 0.0),
    "leakyrelu": (lambda x, a, b: leaky_relu(x, a), 0.01, None),
    "thresholdedrelu": (lambda x, a, b: jnp.where(x >= a, x, 0), 1.0, None),
    "scaledtanh": (lambda x, a, b: a * jnp.tanh(b * x), 1.0, 1.0),
    "hardsigmoid": (lambda x, a, b: hard_sigmoid(x, a, b), 0.2, 0.5),
    "elu": (lambda x, a, b: elu(x, a), 1.0, None),
}


@dataclass(frozen=True, slots=True)
class Options:
    """The attributes that RNN, GRU and LSTM share."""

    direction: str
    activations: Sequence[str] | None
    alphas: Sequence[float] | None
    betas: Sequence[float] | None
    clip: float | None
    layout: int


def _activations(options: Options) -> list[Activation]:
    """Returns the named activations; each takes the next unused alpha and beta if it has such a parameter."""
    if options.clip is not None and options.clip < 0:
        raise InvalidInputError("A clip threshold is not negative", got=f"{options.clip}")
    alphas, betas, clip = list(options.alphas or ()), list(options.betas or ()), options.clip

    def activation(name: str) -> Activation:
        if name.lower() not in _ACTIVATIONS:
            raise InvalidInputError(f"An activation is one of {', '.join(_ACTIVATIONS)}", got=name)
        function, alpha, beta = _ACTIVATIONS[name.lower()]
        if alpha is not None and alphas:
            alpha = alphas.pop(0)
        if beta is not None and betas:
            beta = betas.pop(0)
        if clip is None:
            return lambda x: function(x, alpha, beta)
        return lambda x: function(jnp.clip(x, -clip, clip), alpha, beta)

    return [activation(name) for name in options.activations or ()]


def _run(
    x: Value,
    input_products: Sequence[Product],
    hidden: int,
    lengths: Value,
    initial: Sequence[Value],
    cell: Callable[[int, list[Activation]], tuple[Value, Step]],
    options: Options,
) -> tuple[Value, ...]:
    """Returns the outputs of all steps and the last states; `cell` returns a direction's input bias and step."""
    n_directions = len(input_products)
    if options.direction not in ("forward", "foward", "reverse", "bidirectional"):  # one schema default is misspelt
        raise InvalidInputError("A direction is forward, reverse or bidirectional", got=options.direction)
    if n_directions != 1 + (options.direction == "bidirectional"):
        raise InvalidInputError(
            "Weights are given for each direction", got=f"{n_directions} sets for direction {options.direction}"
        )
    x = jnp.asarray(x)
    if options.layout:
        x = jnp.swapaxes(x, 0, 1)
        initial = [None if s is None else jnp.swapaxes(s, 0, 1) for s in initial]
    functions = _activations(options)
    n_gates = len(functions) // n_directions
    outputs, states = [], []
    for d in range(n_directions):
        start = tuple(jnp.zeros((x.shape[1], hidden), x.dtype) if s is None else jnp.asarray(s)[d] for s in initial)
        bias, step = cell(d, functions[d * n_gates : (d + 1) * n_gates])
        backward = d == 1 or options.direction == "reverse"
        steps = _reversed(x, lengths) if backward else x
        ys, last = _scan(step, start, input_products[d](steps) + bias, lengths)
        outputs.append(_reversed(ys, lengths) if backward else ys)
        states.append(last)
    ys = jnp.stack(outputs, 1)  # steps, directions, batch, hidden
    lasts = tuple(jnp.stack(state) for state in zip(*states, strict=True))
    if options.layout:
        return jnp.transpose(ys, (2, 0, 1, 3)), *(jnp.swapaxes(state, 0, 1) for state in lasts)
    return ys, *lasts


def _reversed(x: Value, lengths: Value) -> Value:
    """Reverses the steps of each sequence within its length."""
    if lengths is None:
        return jnp.flip(x, 0)
    step = jnp.arange(x.shape[0])[:, None]
    index = jnp.where(step < lengths, lengths - 1 - step, step)
    return jnp.take_along_axis(x, index[..., None], 0)


def _scan(step: Step, start: Carry, xs: Value, lengths: Value) -> tuple[Value, Carry]:
    """Returns the outputs of all steps, 0 after a sequence's end, and the states at each sequence's end."""
    n_steps = xs.shape[0]

    def body(carry: Carry, inputs: tuple[Value, Value]) -> tuple[Carry, Value]:
        i, x = inputs
        new = step(carry, x)
        if lengths is None:
            return new, new[0]
        inside = (i < lengths)[:, None]
        return tuple(jnp.where(inside, a, b) for a, b in zip(new, carry, strict=True)), jnp.where(inside, new[0], 0)

    if n_steps == 1:  # streaming models take one step in each call
        last, y = body(start, (jnp.asarray(0), xs[0]))
        return y[None], last
    last, ys = jax.lax.scan(body, start, (jnp.arange(n_steps), xs))
    return ys, last


def _dot(h: Value, weight: Value) -> Value:
    return jnp.matmul(h, weight, precision=HIGHEST)


def _products(weights: Value) -> list[Product]:
    """Returns, for each direction, the product with its matrix of (gates, size)."""
    matrices = jnp.swapaxes(weights, 1, 2)
    return [partial(_dot, weight=matrices[d]) for d in range(len(matrices))]


def _biases(b: Value, d: int, gates: int, dtype: Any) -> tuple[Value, Value]:
    """Returns the biases of the input and of the recurrence, or zeros."""
    return (jnp.zeros(gates, dtype), jnp.zeros(gates, dtype)) if b is None else (b[d][:gates], b[d][gates:])


def _names(given: Sequence[str] | None, default: tuple[str, ...], n_directions: int) -> Sequence[str]:
    wanted = len(default) * n_directions
    names = given or default * n_directions
    if len(names) < wanted:
        raise InvalidInputError("Activations are given for each gate and direction", got=f"{len(names)} of {wanted}")
    return names[:wanted]


@op("RNN")
@in_float32
def rnn(
    x: Value,
    w: Value,
    r: Value,
    b: Value = None,
    lengths: Value = None,
    initial_h: Value = None,
    /,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] = ("Tanh", "Tanh"),
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    output_sequence: int = 0,
) -> tuple[Value, ...]:
    """Runs a recurrent layer, h' = f(W x + R h + b)."""
    names, state_products = _names(activations, ("Tanh",), len(r)), _products(r)

    def cell(d: int, functions: list[Activation]) -> tuple[Value, Step]:
        (f,) = functions
        wb, rb = _biases(b, d, w.shape[1], x.dtype)
        return wb + rb, lambda carry, x: (f(x + state_products[d](carry[0])),)

    options = Options(direction, names, activation_alpha, activation_beta, clip, layout)
    return _run(x, _products(w), r.shape[-1], lengths, [initial_h], cell, options)


@op("GRU")
@in_float32
def gru(
    x: Value,
    w: Value,
    r: Value,
    b: Value = None,
    lengths: Value = None,
    initial_h: Value = None,
    /,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
    output_sequence: int = 0,
) -> tuple[Value, ...]:
    """Runs a layer of gated recurrent units (Cho et al. 2014), gates in the order update, reset, new."""
    names = _names(activations, ("Sigmoid", "Tanh"), len(r))
    hidden, matrices = r.shape[-1], jnp.swapaxes(r, 1, 2)

    def cell(d: int, functions: list[Activation]) -> tuple[Value, Step]:
        f, g = functions
        wb, rb = _biases(b, d, 3 * hidden, x.dtype)
        r_gates, r_new = matrices[d][:, : 2 * hidden], matrices[d][:, 2 * hidden :]
        rb_gates, rb_new = rb[: 2 * hidden], rb[2 * hidden :]

        def step(carry: Carry, x: Value) -> Carry:
            (h,) = carry
            update, reset = jnp.split(f(x[..., : 2 * hidden] + _dot(h, r_gates) + rb_gates), 2, -1)
            recurrent = reset * (_dot(h, r_new) + rb_new) if linear_before_reset else _dot(reset * h, r_new) + rb_new
            return ((1 - update) * g(x[..., 2 * hidden :] + recurrent) + update * h,)

        return wb, step

    options = Options(direction, names, activation_alpha, activation_beta, clip, layout)
    return _run(x, _products(w), hidden, lengths, [initial_h], cell, options)


@op("LSTM")
@in_float32
def lstm(
    x: Value,
    w: Value,
    r: Value,
    b: Value = None,
    lengths: Value = None,
    initial_h: Value = None,
    initial_c: Value = None,
    peepholes: Value = None,
    /,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
    output_sequence: int = 0,
) -> tuple[Value, ...]:
    """Runs a long short-term memory (Hochreiter and Schmidhuber 1997), gates ordered input, output, forget, new."""
    options = Options(direction, activations, activation_alpha, activation_beta, clip, layout)
    products = _products(w), _products(r)
    return long_short_term(
        x, *products, r.shape[-1], b, lengths, initial_h, initial_c, peepholes, input_forget, options
    )


def long_short_term(
    x: Value,
    input_products: Sequence[Product],
    state_products: Sequence[Product],
    hidden: int,
    b: Value,
    lengths: Value,
    initial_h: Value,
    initial_c: Value,
    peepholes: Value,
    input_forget: int,
    options: Options,
) -> tuple[Value, ...]:
    """Runs an LSTM layer, given the products of its weights with inputs and with states."""

    def cell(d: int, functions: list[Activation]) -> tuple[Value, Step]:
        f, g, k = functions
        wb, rb = _biases(b, d, 4 * hidden, x.dtype)
        to_input, to_output, to_forget = (0, 0, 0) if peepholes is None else jnp.split(jnp.asarray(peepholes)[d], 3)

        def step(carry: Carry, x: Value) -> Carry:
            h, c = carry
            i, o, forget, new = jnp.split(x + state_products[d](h), 4, -1)
            i = f(i + to_input * c)
            forget = 1 - i if input_forget else f(forget + to_forget * c)
            c = forget * c + i * g(new)
            return f(o + to_output * c) * k(c), c

        return wb + rb, step

    names = _names(options.activations, ("Sigmoid", "Tanh", "Tanh"), len(input_products))
    options = replace(options, activations=names)
    return _run(x, input_products, hidden, lengths, [initial_h, initial_c], cell, options)
