"""Random draws, the same in every call of a model: a node's `seed` decides them or, without one, the names it writes.

ONNX does not define the generator, so the numbers differ from those of other runtimes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.limits import check_made
from modeldiff_jax.models.graph.values import Value, astype
from modeldiff_jax.models.onnx.ops.common import element_type
from modeldiff_jax.models.onnx.registration import op
from modeldiff_jax.runtime import x64


def _key(seed: float | None, stream: int) -> Any:
    if seed is None:  # nodes without a seed draw different numbers
        return jax.random.fold_in(jax.random.key(0), stream)
    return jax.random.key(int(np.float32(seed).view(np.uint32)))


def _draw(
    name: str,
    shape: Sequence[int],
    seed: float | None,
    stream: int,
    dtype: np.dtype[Any],
    start: float = 0.0,
    scale: float = 1.0,
) -> Value:
    """Returns start + scale * draws of a distribution."""
    check_made(shape)
    wide = np.promote_types(dtype, np.float32)

    def draw() -> Value:
        return start + scale * getattr(jax.random, name)(_key(seed, stream), tuple(shape), wide)

    return astype(x64.in_64_bits(draw) if x64.is_64_bit(wide) else draw(), dtype)


def _like(x: Value, dtype: int | None) -> np.dtype[Any]:
    return np.dtype(x.dtype) if dtype is None else element_type(dtype)


@op("RandomNormal")
def random_normal(
    *,
    dtype: int = 1,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
    shape: Sequence[int],
    stream: int,
) -> Value:
    """Draws from a normal distribution."""
    kind = element_type(dtype)
    return _draw("normal", shape, seed, stream, kind, mean, scale)


@op("RandomNormalLike")
def random_normal_like(
    x: Value,
    /,
    *,
    dtype: int | None = None,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
    stream: int,
) -> Value:
    """Draws from a normal distribution in the shape of `x`."""
    kind = _like(x, dtype)
    return _draw("normal", x.shape, seed, stream, kind, mean, scale)


@op("RandomUniform")
def random_uniform(
    *, dtype: int = 1, high: float = 1.0, low: float = 0.0, seed: float | None = None, shape: Sequence[int], stream: int
) -> Value:
    """Draws uniformly between two numbers."""
    kind = element_type(dtype)
    return _draw("uniform", shape, seed, stream, kind, low, high - low)


@op("RandomUniformLike")
def random_uniform_like(
    x: Value,
    /,
    *,
    dtype: int | None = None,
    high: float = 1.0,
    low: float = 0.0,
    seed: float | None = None,
    stream: int,
) -> Value:
    """Draws uniformly between two numbers in the shape of `x`."""
    kind = _like(x, dtype)
    return _draw("uniform", x.shape, seed, stream, kind, low, high - low)


@op("Bernoulli")
def bernoulli(x: Value, /, *, dtype: int | None = None, seed: float | None = None, stream: int) -> Value:
    """Draws 1 with the probability in `x`, else 0."""
    return astype(_draw("uniform", x.shape, seed, stream, np.dtype(np.float32)) < x, _like(x, dtype))


@op("Multinomial")
def multinomial(x: Value, /, *, dtype: int = 6, sample_size: int = 1, seed: float | None = None, stream: int) -> Value:
    """Draws classes by the unnormalised log probabilities in each row."""
    if x.ndim != 2 or sample_size < 0:
        raise InvalidInputError("Multinomial draws from the rows of a matrix", got=f"{sample_size} of shape {x.shape}")
    check_made((x.shape[0], sample_size, x.shape[1]))
    drawn = jax.random.categorical(_key(seed, stream), jnp.asarray(x)[:, None], shape=(x.shape[0], sample_size))
    return astype(drawn, element_type(dtype))
