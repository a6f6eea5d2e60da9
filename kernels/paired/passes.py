"""Distances of many pairs at once: in blocks that fit a CPU's cache, or in passes over all pairs.

Passes compute the sums that a distance is made of, for all pairs at once and with each array read once, without scaling
the vectors first. Pairs whose sums are so small or so large that digits are lost are computed again by the definition.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from modeldiff_jax.kernels.paired.definitions import METRICS, residual_of

BLOCK = 24 * 1024
"""Entries of each array that a CPU computes with at once: 96 KiB, which fit a core's cache with what they become.

A third more takes five times as long: the system then maps new memory for every intermediate array.
"""


def in_blocks(a: Float[Array, "n c"], b: Float[Array, "n c"], metric: str) -> Float[Array, " n"]:
    """Computes distances by the definition, on a CPU in blocks of pairs."""
    distance = METRICS[metric]

    def blocks(a: Array, b: Array) -> Array:
        return lax.map(lambda pair: distance(*pair), (a, b), batch_size=max(1, BLOCK // a.shape[-1]))

    return lax.platform_dependent(a, b, cpu=blocks, default=jax.vmap(distance))


_SAFE = 1e-24, 1e30
"""Sums of squares outside this range may have lost digits."""
_NEAR = 0.1
"""Cosine distances below it take a second pass: 1 - cosine has an absolute error of up to 1e-6."""
_LANES = 4
"""Sums kept side by side. A CPU adds to them as vectors; a single sum would wait for each addition to finish."""
_LONG = 1024
"""Entries added up one after another in all lanes. Sums of longer vectors are made of partial sums."""
Terms: TypeAlias = Callable[[Array, Array], tuple[Array, ...]]


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def in_passes(a: Float[Array, "n c"], b: Float[Array, "n c"], metric: str) -> Float[Array, " n"]:
    """Computes distances from sums, for the metrics of `BY_SUMS`."""
    distances, unsafe = BY_SUMS[metric](a, b)
    redo = partial(_redo_blocks, metric=metric), partial(_redo_all, metric=metric)
    return lax.platform_dependent(distances, unsafe, a, b, cpu=redo[0], default=redo[1])


def _redo_blocks(distances: Array, unsafe: Array, a: Array, b: Array, metric: str) -> Array:
    """Recomputes the blocks that hold unsafe pairs, by the definition."""
    n, width = a.shape
    rows = max(1, min(n, BLOCK // width))
    blocks = -(-n // rows)

    def redo(i: Array, distances: Array) -> Array:
        start = jnp.minimum(numbers[i] * rows, n - rows)  # the last block is shifted back to fit
        x, y = (lax.dynamic_slice_in_dim(side, start, rows) for side in (a, b))
        return lax.dynamic_update_slice_in_dim(distances, jax.vmap(METRICS[metric])(x, y), start, 0)

    affected = jnp.pad(unsafe, (0, blocks * rows - n)).reshape(blocks, rows).any(1)
    numbers = jnp.nonzero(affected, size=blocks, fill_value=0)[0].astype(jnp.int32)
    return lax.fori_loop(jnp.int32(0), jnp.sum(affected, dtype=jnp.int32), redo, distances)


def _redo_all(distances: Array, unsafe: Array, a: Array, b: Array, metric: str) -> Array:
    all_pairs = jax.vmap(METRICS[metric])
    return lax.cond(unsafe.any(), lambda: jnp.where(unsafe, all_pairs(a, b), distances), lambda: distances)


@in_passes.defjvp
def _derivative_in_blocks(
    metric: str, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    tangent = jax.jvp(lambda a, b: in_blocks(a, b, metric), primals, tangents)[1]
    return in_passes(*primals, metric), tangent


def _cosine_by_sums(a: Float[Array, "n c"], b: Float[Array, "n c"]) -> tuple[Array, Array]:
    a_square, b_square, product = _sums(lambda x, y: (x * x, y * y, x * y), a, b)
    unsafe = _is_unsafe(a_square) | _is_unsafe(b_square)
    a_norm, b_norm = (jnp.sqrt(jnp.where(unsafe, 1, square)) for square in (a_square, b_square))
    from_cosine = 1 - product / (a_norm * b_norm)

    def from_residual(a: Array, b: Array) -> Array:  # as `_half_squared_chord`
        factor = a_norm / b_norm

        def terms(x: Array, y: Array) -> tuple[Array, Array]:
            r = residual_of(x, y, jnp.expand_dims(factor, range(1, x.ndim)))
            return r * r, r * x

        r_square, r_a = _sums(terms, a, b)
        length = factor * b_norm
        excess = (2 * r_a - r_square) / (a_norm + length)
        distance = (r_square - excess * excess) / (2 * a_norm * length)
        return jnp.where(from_cosine < _NEAR, distance, from_cosine)

    near = jnp.any((from_cosine < _NEAR) & ~unsafe)
    return jnp.clip(lax.cond(near, from_residual, lambda a, b: from_cosine, a, b), 0, 2), unsafe


def _euclidean_by_sums(a: Float[Array, "n c"], b: Float[Array, "n c"]) -> tuple[Array, Array]:
    (square,) = _sums(lambda x, y: ((x - y) ** 2,), a, b)
    return jnp.sqrt(square), _is_unsafe(square)


BY_SUMS: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "cosine": _cosine_by_sums,
    "euclidean": _euclidean_by_sums,
}
"""Functions that return distances, and which of them are unsafe and to be computed again."""


def _is_unsafe(square: Float[Array, " n"]) -> Bool[Array, " n"]:
    return ~((square > _SAFE[0]) & (square < _SAFE[1]))


def _sums(terms: Terms, a: Float[Array, "n c"], b: Float[Array, "n c"]) -> list[Float[Array, " n"]]:
    """Sums each of some elementwise terms over the vectors."""

    def on_cpu(a: Array, b: Array) -> list[Array]:
        n, width = a.shape
        parts = width // _LONG if width > _LONG else 0
        whole = parts * _LONG
        even = width - (width - whole) % _LANES
        sums: list[list[Array]] = []
        if whole:
            split = (x[:, :whole].reshape(n, parts, _LONG // _LANES, _LANES) for x in (a, b))
            sums.append([jnp.sum(part, axis=1) for part in _sums_in_lanes(terms, *split)])
        if even > whole:
            split = (x[:, whole:even].reshape(n, (even - whole) // _LANES, _LANES) for x in (a, b))
            sums.append(_sums_in_lanes(terms, *split))
        if width > even:
            sums.append([jnp.sum(term, axis=1) for term in terms(a[:, even:], b[:, even:])])
        return [sum(rest, first) for first, *rest in zip(*sums, strict=True)]

    def elsewhere(a: Array, b: Array) -> list[Array]:
        return [jnp.sum(term, axis=1) for term in terms(a, b)]

    return lax.platform_dependent(a, b, cpu=on_cpu, default=elsewhere)


def _sums_in_lanes(terms: Terms, a: Float[Array, "n *parts w l"], b: Float[Array, "n *parts w l"]) -> list[Array]:
    """Sums over the last two axes, all terms in one reduction."""
    lanes = [terms(a[..., lane], b[..., lane]) for lane in range(_LANES)]
    flat = [term for lane in lanes for term in lane]
    zeros = [jnp.float32(0)] * len(flat)
    sums = lax.reduce(flat, zeros, lambda x, y: [u + v for u, v in zip(x, y, strict=True)], (flat[0].ndim - 1,))
    number = len(lanes[0])
    return [sum(sums[term + number :: number], sums[term]) for term in range(number)]
