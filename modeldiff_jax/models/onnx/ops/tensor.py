"""Shape, layout and element type. Concrete values stay in numpy, so shape arithmetic is never traced."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.rounding import finite_range
from modeldiff_jax.limits import check_made
from modeldiff_jax.models.graph.registry import Index, Static
from modeldiff_jax.models.graph.sizes import as_sizes, is_sizes, traced_sizes
from modeldiff_jax.models.graph.values import Value, astype, axis_index, axis_indices, concrete, module_for, sizes, xp
from modeldiff_jax.models.graph.windows import check_padded
from modeldiff_jax.models.onnx.ops.common import computing_in, element_type
from modeldiff_jax.models.onnx.registration import op

# fmt: off
_OLD_TYPE_NAMES = (
    "UNDEFINED", "FLOAT", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "STRING", "BOOL", "FLOAT16", "DOUBLE",
    "UINT32", "UINT64", "COMPLEX64", "COMPLEX128",
)
# fmt: on


@op("Cast")
def cast_1(x: Value, /, *, to: str) -> Value:
    """Casts `x` to a type, given by its name."""
    if to not in _OLD_TYPE_NAMES:
        raise InvalidInputError("Cast's type is one ONNX defines", got=to)
    return _cast(x, element_type(_OLD_TYPE_NAMES.index(to)))


@op("Cast", since=6)
def cast(x: Value, /, *, to: int, saturate: int = 1, round_mode: str = "up") -> Value:
    """Casts `x` to another type; `saturate` clips to the range of 8-bit floats, `round_mode` is for float8e8m0."""
    return _cast(x, element_type(to), saturate, round_mode)


@op("CastLike")
def cast_like(x: Value, like: Value, /, *, saturate: int = 1, round_mode: str = "up") -> Value:
    """Casts `x` to the type of `like`."""
    return _cast(x, like.dtype, saturate, round_mode)


def _cast(x: Value, dtype: np.dtype[Any], saturate: int = 1, round_mode: str = "up") -> Value:
    if is_sizes(x):  # symbolic sizes are integers; in another type they are data
        return x if jnp.issubdtype(dtype, jnp.integer) else astype(traced_sizes(x), dtype)
    if dtype.kind == "O":
        return np.array([str(v) for v in np.ravel(x)], object).reshape(x.shape)
    if dtype.name == "float8_e8m0fnu":
        return _cast_to_power(x, dtype, round_mode)
    if jnp.issubdtype(dtype, jnp.integer) and jnp.issubdtype(x.dtype, jnp.floating):
        return computing_in(dtype, x, lambda: _whole(x, dtype))
    small = dtype.itemsize == 1 and jnp.issubdtype(dtype, jnp.floating)
    if small and (saturate or dtype.name.startswith("float4")):
        x = xp(x).clip(astype(x, np.float32), *map(float, finite_range(dtype)))
    return astype(x, dtype)


def _whole(x: Value, dtype: np.dtype[Any]) -> Value:
    """Casts floats to integers; ONNX does not define the result for those outside of the type's range.

    They become what x86 processors, and so onnxruntime and numpy, make of them, but on every device: the smallest value
    of a signed type; for a type narrower than 32 bits the lowest bits of the int32.
    """
    if dtype.itemsize < 4:
        return astype(_whole(x, np.dtype(np.int32)), dtype)
    m, signed = xp(x), np.dtype(f"i{dtype.itemsize}")
    wide = astype(x, np.float32) if x.dtype.itemsize < 4 else x
    half = 2.0 ** (8 * dtype.itemsize - 1)
    large = (wide >= half) & (dtype != signed)  # the upper half of an unsigned type
    wide = m.where(large, wide - half, wide)
    least = np.asarray(-half, wide.dtype)
    whole = astype(astype(m.where((wide >= -half) & (wide < half), wide, least), signed), dtype)
    return whole if dtype == signed else whole + astype(large, dtype) * np.asarray(half, dtype)


def _cast_to_power(x: Value, dtype: np.dtype[Any], round_mode: str) -> Value:
    m = xp(x)
    wide = astype(x, np.float32)
    fraction, exponent = m.frexp(m.abs(wide))  # fraction in [0.5, 1)
    rounds_up = {"up": fraction > 0.5, "down": fraction > 1, "nearest": fraction >= 0.75}[round_mode]
    exponent = m.where(wide == 0, -127, exponent - 1 + rounds_up)
    bits = m.where(m.isfinite(wide), m.clip(exponent, -127, 127) + 127, 255)  # the type is an exponent, or NaN
    return astype(bits, np.uint8).view(dtype)


@op("BitCast")
def bit_cast(x: Value, /, *, to: int) -> Value:
    """Reads the bits of `x` as another type of the same width."""
    return x.view(element_type(to))


@op("Identity")
def identity(x: Value, /) -> Value:
    """Returns x."""
    return (x,) if isinstance(x, tuple) else x


@op("Reshape")
def reshape_1(x: Value, /, *, shape: Sequence[int] = (), consumed_inputs: Sequence[int] | None = None) -> Value:
    """Reshapes `x`; a size of 0 keeps the old one, and -1 is computed from the others."""
    return reshape(x, np.asarray(shape, np.int64))


@op("Reshape", since=5)
def reshape(x: Value, shape: Static, /, *, allowzero: int = 0) -> Value:
    """Reshapes `x`; a size of 0 keeps the old one (unless `allowzero`), and -1 is computed from the others."""
    dims = tuple(
        x.shape[i] if isinstance(dim, int) and dim == 0 and allowzero != 1 else dim
        for i, dim in enumerate(sizes(shape))
    )
    return module_for(dims, x).reshape(x, dims)


@op("Transpose")
def transpose(x: Value, /, *, perm: Sequence[int] | None = None) -> Value:
    """Returns `x` with its axes in another order, reversed by default."""
    return xp(x).transpose(x, perm)


@op("Squeeze")
def squeeze_1(x: Value, /, *, axes: Sequence[int] | None = None) -> Value:
    """Removes axes of size 1, by default all of them."""
    return squeeze(x, axes)


@op("Squeeze", since=13)
def squeeze(x: Value, axes: Static = None, /) -> Value:
    """Removes axes of size 1, by default all of them."""
    if axes is None:
        return xp(x).squeeze(x, tuple(i for i, dim in enumerate(x.shape) if isinstance(dim, int) and dim == 1))
    return xp(x).squeeze(x, axis_indices(axes, x.ndim))


@op("Unsqueeze")
def unsqueeze_1(x: Value, /, *, axes: Sequence[int]) -> Value:
    """Inserts axes of size 1; `axes` are counted in the result."""
    return unsqueeze(x, axes)


@op("Unsqueeze", since=13)
def unsqueeze(x: Value, axes: Static, /) -> Value:
    """Inserts axes of size 1; `axes` are counted in the result."""
    return xp(x).expand_dims(x, axis_indices(axes, x.ndim + np.size(axes)))


@op("Flatten")
def flatten(x: Value, /, *, axis: int = 1) -> Value:
    """Reshapes `x` to a matrix, whose rows are the axes before `axis`."""
    first = axis_index(axis, x.ndim + 1) if axis >= 0 else axis_index(axis, x.ndim)
    shape = (math.prod(x.shape[:first]), math.prod(x.shape[first:]))
    return xp(x).reshape(x, shape)


@op("Concat")
def concat_1(*xs: Value, axis: int = 1) -> Value:
    """Concatenates all inputs along `axis`."""
    return xp(*xs).concatenate(xs, axis)


@op("Concat", since=4)
def concat(*xs: Value, axis: int) -> Value:
    """Concatenates all inputs along `axis`."""
    return xp(*xs).concatenate(xs, axis)


@op("Split")
def split_1(
    x: Value, lengths: Static = None, /, *, axis: int = 0, split: Sequence[int] | None = None, n_outputs: int
) -> tuple[Value, ...]:
    """Splits `x` along `axis` into parts of given lengths, or equal ones."""
    return _split(x, split if lengths is None else lengths, axis, n_outputs)


@op("Split", since=2)
def split_2(x: Value, /, *, axis: int = 0, split: Sequence[int] | None = None, n_outputs: int) -> tuple[Value, ...]:
    """Splits `x` along `axis` into parts of given lengths, or equal ones."""
    return _split(x, split, axis, n_outputs)


@op("Split", since=13)
def split_13(
    x: Value, lengths: Static = None, /, *, axis: int = 0, num_outputs: int | None = None, n_outputs: int
) -> tuple[Value, ...]:
    """Splits `x` along `axis` into parts of given lengths, or equal ones but for the last, which may be shorter."""
    return _split(x, lengths, axis, num_outputs or n_outputs)


def _split(x: Value, lengths: Any, axis: int, n_outputs: int) -> tuple[Value, ...]:
    axis = axis_index(axis, x.ndim)
    size = x.shape[axis]
    if lengths is None:
        length = -(-size // n_outputs)
        lengths = [length] * (n_outputs - 1) + [size - length * (n_outputs - 1)]
    lengths = sizes(np.asarray(lengths))
    if len(lengths) != n_outputs:
        raise InvalidInputError("A Split has a length for every part", got=f"{len(lengths)} for {n_outputs} parts")
    return split_at(x, lengths, axis)


def split_at(x: Value, lengths: tuple[Any, ...], axis: int) -> tuple[Value, ...]:
    """Splits `x` along `axis` into parts of these lengths."""
    size = x.shape[axis]
    if (isinstance(size, int) and sum(lengths) != size) or min(lengths, default=0) < 0:
        raise InvalidInputError("The parts of a split fill its axis", got=f"lengths {lengths} for {size}")
    starts = np.cumsum([0, *lengths])
    return tuple(x[(slice(None),) * axis + (slice(a, b),)] for a, b in pairwise(starts))


@op("Expand")
def expand(x: Value, shape: Static, /) -> Value:
    """Broadcasts `x` with `shape`, whose sizes of 1 keep those of `x`."""
    dims = jnp.broadcast_shapes(x.shape, sizes(shape))
    check_made(dims)
    return module_for(dims, x).broadcast_to(x, dims)


@op("Tile")
def tile_1(x: Value, tiles: Static, axis: Static, /) -> Value:
    """Repeats `x` along one axis."""
    repeats = np.ones(x.ndim, np.int64)
    repeats[axis_index(int(np.ravel(axis)[0]), x.ndim)] = int(np.ravel(tiles)[0])
    return tile(x, repeats)


@op("Tile", since=6)
def tile(x: Value, repeats: Static, /) -> Value:
    """Repeats `x` along every axis."""
    counts = sizes(repeats)
    shape = tuple(dim * n for dim, n in zip(x.shape, counts, strict=True))
    check_made(shape)
    return module_for(shape, x).tile(x, counts)


@op("Shape")
def shape(x: Value, /, *, start: int = 0, end: int | None = None) -> Value:
    """Returns the sizes of the axes from `start` to `end`, which are known while tracing."""
    return as_sizes(x.shape[start:end])


@op("Size")
def size(x: Value, /) -> Value:
    """Returns the number of elements, which is known while tracing."""
    return as_sizes((math.prod(x.shape),)).reshape(())


@op("Where")
def where(condition: Value, x: Value, y: Value, /) -> Value:
    """Returns `x` where the condition holds, `y` elsewhere."""
    return xp(condition, x, y).where(condition, x, y)


@op("Trilu")
def trilu(x: Value, k: Index = None, /, *, upper: int = 1) -> Value:
    """Returns the part of each matrix on and above (or below) its k-th diagonal, and zeros elsewhere."""
    m, k = xp(x, k), 0 if k is None else k.reshape(())
    diagonal = np.arange(x.shape[-1]) - np.arange(x.shape[-2])[:, None]
    return m.where(diagonal >= k if upper else diagonal <= k, x, m.zeros((), x.dtype))


@op("Pad")
def pad_1(x: Value, /, *, mode: str = "constant", paddings: Sequence[int], value: float = 0.0) -> Value:
    """Pads `x` at both ends of every axis."""
    return _pad(x, paddings, mode, np.asarray(value, x.dtype), None)


@op("Pad", since=2)
def pad_2(x: Value, /, *, mode: str = "constant", pads: Sequence[int], value: float = 0.0) -> Value:
    """Pads (or, where negative, crops) `x` at both ends of every axis."""
    return _pad(x, pads, mode, np.asarray(value, x.dtype), None)


@op("Pad", since=11)
def pad(x: Value, pads: Static, value: Value = None, axes: Static = None, /, *, mode: str = "constant") -> Value:
    """Pads (or, where negative, crops) `x` at both ends of the given axes: constant, reflect, edge or wrap."""
    return _pad(x, pads, mode, value, axes)


def _pad(x: Value, pads: Any, mode: str, value: Value, axes: Static) -> Value:
    counts = sizes(np.asarray(pads))
    indices = tuple(range(x.ndim)) if axes is None else axis_indices(axes, x.ndim)
    if len(counts) != 2 * len(indices):
        raise InvalidInputError("Pad needs two numbers for each axis", got=f"{len(counts)} for {len(indices)} axes")
    ends = [(0, 0)] * x.ndim
    for i, axis in enumerate(indices):
        ends[axis] = (counts[i], counts[len(indices) + i])
    check_padded(x.shape, ends)
    if mode == "constant" and not concrete(x, value):
        x = jnp.asarray(x)
        fill = jnp.zeros((), x.dtype) if value is None else jnp.asarray(value, x.dtype).reshape(())
        return jax.lax.pad(x, fill, [(low, high, 0) for low, high in ends])
    crop = tuple(
        slice(-low if low < 0 else 0, dim + high if high < 0 else None)
        for dim, (low, high) in zip(x.shape, ends, strict=True)
    )
    padding = [(max(low, 0), max(high, 0)) for low, high in ends]
    if mode == "constant":
        return np.pad(x[crop], padding, constant_values=0 if value is None else np.ravel(value)[0])
    if mode not in ("reflect", "edge", "wrap"):
        raise InvalidInputError("Pad's mode is constant, reflect, edge or wrap", got=mode)
    x = x[crop]
    for axis, (low, high) in enumerate(padding):
        size = x.shape[axis]
        if isinstance(size, int) and 0 < size <= max(low, high):  # `pad` would concatenate many copies
            positions = xp(x).arange(-low, size + high, dtype=np.int32)
            x, padding[axis] = x.take(_read_by_pad(positions, size, mode), axis, mode="clip"), (0, 0)
    return xp(x).pad(x, padding, mode=mode)


def _read_by_pad(positions: Value, size: int, mode: str) -> Value:
    """Returns the index of the entry that padding repeats at each position, counted from the axis's first entry."""
    if mode == "edge":
        return positions.clip(0, size - 1)
    if mode == "wrap":
        return positions % size
    period = max(2 * (size - 1), 1)
    return xp(positions).minimum(positions % period, -positions % period)


@op("DepthToSpace")
def depth_to_space(x: Value, /, *, blocksize: int, mode: str = "DCR") -> Value:
    """Rearranges channels as blocks of pixels; `mode` decides whether block or depth is the slower channel axis."""
    n, c, h, w = x.shape
    b = blocksize
    if mode == "DCR":
        y = xp(x).transpose(x.reshape(n, b, b, c // (b * b), h, w), (0, 3, 4, 1, 5, 2))
    else:
        y = xp(x).transpose(x.reshape(n, c // (b * b), b, b, h, w), (0, 1, 4, 2, 5, 3))
    return y.reshape(n, c // (b * b), h * b, w * b)


@op("SpaceToDepth")
def space_to_depth(x: Value, /, *, blocksize: int, mode: str = "DCR") -> Value:
    """Rearranges blocks of pixels as channels, the inverse of DepthToSpace."""
    n, c, h, w = x.shape
    b = blocksize
    blocks = x.reshape(n, c, h // b, b, w // b, b)
    y = xp(x).transpose(blocks, (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4))
    return y.reshape(n, c * b * b, h // b, w // b)
