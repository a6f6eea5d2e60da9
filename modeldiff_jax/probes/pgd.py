"""Projected gradient descent: partners by gradients (the white-box attack of ModelDiff), in compiled programs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from modeldiff_jax.errors import InvalidInputError, NonFiniteError
from modeldiff_jax.runtime.compilation import Program
from modeldiff_jax.runtime.threads import cores, each
from modeldiff_jax.types import Array, Params

ReactionFunction: TypeAlias = Callable[[Params, Any], Any]
"""`function(params, x (N, ...)) -> (N, C)`: pure, hashable, row i of the result depends on row i of `x` alone."""
Direction: TypeAlias = Literal["away", "toward"]
Loss: TypeAlias = Literal["modeldiff", "even"]

EPS = 0.1
"""Radius of the ball as a share of the value range.

The paper's 0.06 is in ImageNet-normalised units: 0.06 * 0.225 = 0.0135 in [0, 1]; its step 0.01 is 0.00225. On small
image networks both radii separate fine-tuned, pruned and quantised children by their logits from all unrelated models;
but probabilities hardly move within 0.0135, and there the larger ball does better (area under the ROC curve of pruned
children 1.00 against 0.93, of distilled ones 0.98 against 0.61).
"""
N_STEPS = 50
"""As in the paper. On small networks 5 do as well; heavy models are given few, see `effort.effort`."""
_TARGET_SCALE = 1000.0
_STRIDE = 2.5
"""The length of all steps, in radii: enough to cross the ball from any random start and turn once."""
_CHUNK_VALUES = 2**20
"""Input values in one chunk, which a network's kept activations multiply by 10 to 100: 0.4 GB and less at a time."""
_CHUNK_VALUES_ON_CPU = 2**17
"""As many as fit the caches: 100 images of 64 x 64 through a depthwise network take 0.6 of the time."""


def pgd(
    function: ReactionFunction,
    params: Params,
    seeds: Float[Array, "n ..."],
    *,
    key: PRNGKeyArray,
    direction: Direction = "away",
    eps: float = EPS,
    step: float | None = None,
    n_steps: int = N_STEPS,
    low: float = 0.0,
    high: float = 1.0,
    loss: Loss = "modeldiff",
    seed_reactions: Float[Array, "n c"] | None = None,
    chunk: int | None = None,
) -> Float[np.ndarray, "n ..."]:
    """Makes partners within an L-infinity ball about the seeds that drive outputs apart, by projected gradient steps.

    Input generation of Li et al., ISSTA 2021, section 4, as in the authors' released notebook: a start drawn uniformly
    from the ball; the target y_i = 1000 * (mean over the seeds of f - f(x_i)); steps along the sign of the gradient of
    (f_0 - y_0)^2 + 0.1 * mean over the other components of (f - y)^2; projection to the ball and the value range.
    The target is so far away that the gradient points along mean - f(x_i) whatever the output is.

    `direction="toward"` descends to that target, as the paper describes: outputs cross to the other side of the mean.
    `direction="away"` ascends, as the released code behaves, whose loss is negated twice: outputs grow more like
    themselves. On logits both do equally well. Outputs bounded to [0, 1] cannot grow, so there `toward` is better.

    A pair whose gradient is zero everywhere, as of a saturated softmax, moves on from its seed through its random start
    to a corner of the ball; so its distance is more than rounding, and it may reach points with a gradient.

    Args:
      function: the model's reaction function; models whose functions are equal share one compilation.
      params: the model's parameters.
      seeds: (N, ...) inputs within [low, high].
      key: random key of the start.
      direction: see above.
      eps: radius of the ball, as a share of the value range: in input units for [0, 1].
      step: length of a step, likewise; None for 2.5 radii over all steps, never more than a radius.
      n_steps: at least 1.
      low, high: range of the inputs, inclusive.
      loss: `modeldiff`, or `even`, which weighs all components alike.
      seed_reactions: (N, C) reactions to the seeds, where they are known.
      chunk: pairs attacked at a time; None for a number that keeps memory low, and on CPU fits the caches.
    Returns:
      (N, ...) float32 partners.
    Raises:
      InvalidInputError: an argument is out of its range.
      NonFiniteError: a reaction to a seed is NaN or infinite.
    """
    _check(direction, loss, eps, step, n_steps, low, high)
    n, shape = len(seeds), seeds.shape[1:]
    chunks, rows = _cut(n, shape, chunk)

    def chunked(x: np.ndarray) -> np.ndarray:
        """Returns (N, ...) as (chunks, rows, ...), the last chunk filled up with pairs from the front."""
        return np.take(x, np.arange(chunks * rows) % n, axis=0).reshape(chunks, rows, *x.shape[1:])

    x = np.asarray(seeds, np.float32)  # the rest is little work, in numpy because it need not compile
    start = np.asarray(_random_start(key, x.shape))
    if seed_reactions is None:
        seed_reactions = np.concatenate([np.asarray(_react(function, params, part)) for part in chunked(x)])[:n]
    origins = np.asarray(seed_reactions, np.float32)
    if not np.isfinite(origins).all():
        raise NonFiniteError(
            "A model's outputs must be finite to be driven apart", got="NaN or infinity", where="reactions to the seeds"
        )
    targets = np.float32(_TARGET_SCALE) * (np.mean(origins, axis=0) - origins)
    scale = high - low
    step = default_step(eps, n_steps) if step is None else step
    sign = 1.0 if direction == "away" else -1.0
    numbers = tuple(np.float32(v) for v in (sign, eps * scale, step * scale, low, high))
    run = _on_host if _on_cpu() else _on_device
    first = _project(x + numbers[1] * start, x, numbers)
    partners = run(function, loss, params, chunked(x), chunked(first), chunked(targets), np.int32(n_steps), numbers)
    return np.asarray(partners).reshape(-1, *shape)[:n]


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _cut(n: int, shape: tuple[int, ...], chunk: int | None) -> tuple[int, int]:
    """Returns the number of chunks, and of rows in each."""
    most_values = _CHUNK_VALUES_ON_CPU if _on_cpu() else _CHUNK_VALUES
    rows = min(n, chunk or max(1, most_values // max(1, math.prod(shape))))
    chunks = -(-n // rows)
    if _on_cpu() and not chunk:  # the same number for every core
        chunks = min(n, -(-chunks // cores()) * cores())
    return chunks, -(-n // chunks)


def default_step(eps: float, n_steps: int) -> float:
    """Returns the length of a step of `pgd` where none is given."""
    return eps * min(1.0, _STRIDE / n_steps)


@partial(jax.jit, static_argnames="shape")
def _random_start(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[jax.Array, "n ..."]:
    return jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0)


def _check(direction: str, loss: str, eps: float, step: float | None, n_steps: int, low: float, high: float) -> None:
    for name, value, allowed in (("direction", direction, get_args(Direction)), ("loss", loss, tuple(_LOSSES))):
        if value not in allowed:
            raise InvalidInputError(f"`{name}` is one of {', '.join(allowed)}", got=repr(value), where="pgd")
    if not (0 < eps <= 1 and (step is None or 0 < step <= 1)):
        raise InvalidInputError(
            "`eps` and `step` are shares of the value range, in (0, 1]", got=f"eps={eps}, step={step}", where="pgd"
        )
    if n_steps < 1 or not low < high:
        raise InvalidInputError(
            "An attack needs n_steps >= 1 and low < high", got=f"n_steps={n_steps}, [{low}, {high}]", where="pgd"
        )


def _on_host(
    function: ReactionFunction,
    loss: Loss,
    params: Params,
    seeds: Float[Array, "k m ..."],
    first: Float[Array, "k m ..."],
    targets: Float[Array, "k m c"],
    n_steps: Any,
    numbers: tuple[Any, ...],
) -> Float[np.ndarray, "k m ..."]:
    """Runs one compiled step from Python, again and again, on several chunks at a time.

    Inside a loop XLA's CPU backend runs a convolution's gradient, and any convolution that is not NHWC, by naive code
    4 to 20 times slower: it rewrites only those outside loops to a form its libraries take. A call costs microseconds.
    """
    _step.lower(function, loss, params, first[0], seeds[0], targets[0], numbers).compile()  # once, not in each thread

    def attack(chunk: tuple[Any, Any, Any]) -> np.ndarray:
        x, *pair = chunk
        for _ in range(n_steps):
            x = _step(function, loss, params, x, *pair, numbers)
        return np.asarray(x)

    return np.stack(each(attack, list(zip(first, seeds, targets, strict=True))))


@partial(Program, static_argnums=(0, 1))
def _on_device(
    function: ReactionFunction,
    loss: Loss,
    params: Params,
    seeds: Float[Array, "k m ..."],
    first: Float[Array, "k m ..."],
    targets: Float[Array, "k m c"],
    n_steps: Any,
    numbers: tuple[Any, ...],
) -> Float[jax.Array, "k m ..."]:
    """Runs all chunks and all steps in one compiled program."""

    def one(parts: tuple[Any, Any, Any]) -> Any:
        seed, x, target = parts

        def step(_: Any, x: Any) -> Any:
            return _step(function, loss, params, x, seed, target, numbers)

        return jax.lax.fori_loop(0, n_steps, step, x)

    return jax.lax.map(one, (seeds, first, targets))


@partial(Program, static_argnums=0)
def _react(function: ReactionFunction, params: Params, x: Float[Array, "m ..."]) -> Float[jax.Array, "m c"]:
    return function(params, x).astype(jnp.float32)


@partial(Program, static_argnums=(0, 1))
def _step(
    function: ReactionFunction,
    loss: Loss,
    params: Params,
    x: Float[Array, "m ..."],
    seeds: Float[Array, "m ..."],
    targets: Float[Array, "m c"],
    numbers: tuple[Any, ...],
) -> Float[jax.Array, "m ..."]:
    """Takes one step along the sign of the gradient, and projects it."""

    def total(x: Any) -> Any:
        return jnp.sum(_LOSSES[loss](function(params, x).astype(jnp.float32), targets))

    gradient = jax.grad(total)(x)
    gradient = jnp.where(jnp.isnan(gradient), 0.0, gradient)  # as of a square root at zero, which has no direction
    move = jnp.where(_is_zero(gradient), x - seeds, numbers[0] * gradient)
    return _project(x + numbers[2] * jnp.sign(move), seeds, numbers)


def _is_zero(gradient: Float[Array, "m ..."]) -> Bool[jax.Array, "m ..."]:
    return ~jnp.any(gradient, axis=tuple(range(1, gradient.ndim)), keepdims=True)


def _project(x: Any, seeds: Any, numbers: tuple[Any, ...]) -> Any:
    _, eps, _, low, high = numbers
    return x.clip((seeds - eps).clip(low), (seeds + eps).clip(None, high))


def _modeldiff(outputs: Float[Array, "m c"], targets: Float[Array, "m c"]) -> Float[jax.Array, " m"]:
    squared = (outputs - targets) ** 2
    return jnp.asarray(squared[:, 0] + 0.1 * jnp.sum(squared[:, 1:], axis=1) / max(1, squared.shape[1] - 1))


def _even(outputs: Float[Array, "m c"], targets: Float[Array, "m c"]) -> Float[jax.Array, " m"]:
    return jnp.mean((outputs - targets) ** 2, axis=1)


_LOSSES: dict[str, Callable[[Any, Any], Any]] = {"modeldiff": _modeldiff, "even": _even}
