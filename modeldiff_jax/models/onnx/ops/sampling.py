"""Interpolation at positions that are data: grids, regions of interest, deformable convolution; and box suppression."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from modeldiff_jax.errors import InvalidInputError, NotStaticError
from modeldiff_jax.limits import check_made, check_window_reads, check_written_out
from modeldiff_jax.models.graph.registry import Static
from modeldiff_jax.models.graph.values import HIGHEST, Value, astype, concrete, in_float32, known, sizes, xp
from modeldiff_jax.models.onnx.registration import op

_CUBIC = -0.75


def _read(x: Value, batch: Value, positions: Sequence[Value], outside: Value = None) -> Value:
    """Reads (batch, channels, spatial...) at integer positions; channels are last in the result.

    Positions beyond the input read `outside`, or the nearest entry if that is None.
    """
    m = xp(x, batch, *positions)
    index = tuple(astype(m.clip(p, 0, n - 1), np.int32) for p, n in zip(positions, x.shape[2:], strict=True))
    entries = m.moveaxis(m.asarray(x), 1, -1)[(batch, *index)]
    if outside is None:
        return entries
    inside: Any = True
    for position, n in zip(positions, x.shape[2:], strict=True):
        inside = inside & (position >= 0) & (position <= n - 1)
    return m.where(inside[..., None], entries, m.asarray(outside, x.dtype))


def _reflected(position: Value, low: float, high: float) -> Value:
    """Reflects positions at `low` and `high` until they lie between."""
    m, width = xp(position), high - low
    if width <= 0:
        return m.full_like(position, low)
    inside = high - m.abs(m.mod(position - low, 2 * width) - width)
    return m.where((position < low) | (position > high), inside, position)


def _taps(position: Value, mode: str) -> list[tuple[Value, Value]]:
    """Returns the integer positions to read for interpolation at `position`, and their weights."""
    m = xp(position)
    if mode == "nearest":
        return [(m.rint(position), m.ones((), position.dtype))]
    base = m.floor(position)
    t = position - base
    if mode == "linear":
        return [(base, 1 - t), (base + 1, t)]
    a = _CUBIC
    outer = [((a * s - 5 * a) * s + 8 * a) * s - 4 * a for s in (t + 1, 2 - t)]
    inner = [((a + 2) * s - (a + 3)) * s * s + 1 for s in (t, 1 - t)]
    return [(base - 1, outer[0]), (base, inner[0]), (base + 1, inner[1]), (base + 2, outer[1])]


def _grid_sample(x: Value, grid: Value, mode: str, padding_mode: str, align_corners: int) -> Value:
    if mode not in ("linear", "nearest", "cubic") or padding_mode not in ("zeros", "border", "reflection"):
        raise InvalidInputError("GridSample's mode and padding are those ONNX defines", got=f"{mode}, {padding_mode}")
    m, n = xp(x, grid), x.ndim - 2
    batch = np.arange(x.shape[0]).reshape((-1,) + (1,) * (grid.ndim - 2))
    axes = []  # for each spatial axis: positions and weights
    for i, size in enumerate(x.shape[2:]):
        coordinate = grid[..., n - 1 - i]
        low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
        position = (coordinate + 1) / 2 * (size - 1) if align_corners else ((coordinate + 1) * size - 1) / 2
        if mode == "nearest":
            position = m.rint(position)
        if padding_mode == "border" and mode != "cubic":  # `_read` clamps the taps of cubic interpolation one by one
            position = m.where((position < low) | (position > high), m.clip(position, 0, size - 1), position)
        elif padding_mode == "reflection":
            position = _reflected(position, low, high)
        taps = _taps(position, mode)
        axes.append([(_reflected(p, low, high) if padding_mode == "reflection" else p, w) for p, w in taps])
    check_written_out(math.prod(map(len, axes)))
    total: Value = 0
    for corner in itertools.product(*axes):
        weight = math.prod(w for _, w in corner)
        read = _read(x, batch, [p for p, _ in corner], 0 if padding_mode == "zeros" else None)
        total = total + read * m.broadcast_to(weight, grid.shape[:-1])[..., None]
    return astype(m.moveaxis(total, -1, 1), x.dtype)


@op("GridSample")
@in_float32
def grid_sample_16(
    x: Value, grid: Value, /, *, align_corners: int = 0, mode: str = "bilinear", padding_mode: str = "zeros"
) -> Value:
    """Samples `x` at the positions in a grid, in coordinates from -1 to 1 (Jaderberg et al. 2015)."""
    modes = {"bilinear": "linear", "bicubic": "cubic"}
    return _grid_sample(x, grid, modes.get(mode, mode), padding_mode, align_corners)


@op("GridSample", since=20)
@in_float32
def grid_sample(
    x: Value, grid: Value, /, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Value:
    """Samples `x` at the positions in a grid, in coordinates from -1 to 1 (Jaderberg et al. 2015)."""
    return _grid_sample(x, grid, mode, padding_mode, align_corners)


@op("AffineGrid")
@in_float32
def affine_grid(theta: Value, size: Static, /, *, align_corners: int = 0) -> Value:
    """Returns the grid with which GridSample applies the affine map `theta` to an image of a size."""
    spatial = sizes(size)[2:]
    check_made((theta.shape[0], *spatial, len(spatial)))
    lines = [
        (np.arange(n) * 2 / max(n - 1, 1) - 1) if align_corners else (2 * np.arange(n) + 1) / n - 1 for n in spatial
    ]
    coordinates = [*reversed(np.meshgrid(*lines, indexing="ij")), np.ones(spatial)]  # x first, and 1 for the shift
    homogeneous = np.stack(coordinates, -1).reshape(-1, len(spatial) + 1).astype(theta.dtype)
    m = xp(theta)
    grid = m.matmul(homogeneous, m.swapaxes(theta, 1, 2), **({} if m is np else {"precision": HIGHEST}))
    return grid.reshape(theta.shape[0], *spatial, len(spatial))


def _roi_align(
    x: Value,
    rois: Value,
    batch: Value,
    mode: str,
    output: tuple[int, int],
    sampling_ratio: int,
    scale: float,
    half_pixel: bool,
) -> Value:
    if mode not in ("avg", "max") or min(output) < 1:
        raise InvalidInputError("RoiAlign averages or takes the maximum over bins", got=f"{mode}, {output}")
    m = xp(x, rois, batch)
    corners = rois * np.asarray(scale, rois.dtype) - np.asarray(0.5 if half_pixel else 0, rois.dtype)
    start, extent = corners[:, 1::-1], corners[:, :1:-1] - corners[:, 1::-1]  # (rois, [height, width])
    if not half_pixel:
        extent = m.maximum(extent, 1)
    bins = extent / np.asarray(output, rois.dtype)
    if sampling_ratio > 0:
        counts = np.full(extent.shape, sampling_ratio)
    elif known(rois):
        counts = np.maximum(np.ceil(np.asarray(bins)), 0).astype(np.int64)
    else:
        raise NotStaticError(
            "RoiAlign without a sampling ratio takes more samples of larger regions",
            got="regions that depend on traced data",
            fix="export the model with a sampling_ratio, or fix the regions: model.bind(name=value)",
        )
    most = int(counts.max(initial=1))
    check_made((rois.shape[0], x.shape[1], output[0] * most, output[1] * most))
    positions, valid = [], []
    for axis, size in enumerate(x.shape[2:]):
        step = (np.arange(most) + 0.5) / np.maximum(counts[:, axis, None], 1)  # (rois, most)
        offset = np.arange(output[axis])[None, :, None] + step[:, None, :]  # in bins
        position = start[:, axis, None, None] + astype(offset, rois.dtype) * bins[:, axis, None, None]
        counted = (np.arange(most) < counts[:, axis, None])[:, None, :]
        valid.append(counted & (position >= -1) & (position <= size))
        positions.append(m.clip(position, 0, size - 1))
    rows = (slice(None), slice(None), None, slice(None), None)
    columns = (slice(None), None, slice(None), None, slice(None))
    inside = valid[0][rows] & valid[1][columns]
    samples: list[Value] = []
    for (row, row_weight), (column, column_weight) in itertools.product(*(_taps(p, "linear") for p in positions)):
        read = _read(x, batch[:, None, None, None, None], [row[rows], column[columns]])
        weight = astype(row_weight[rows] * column_weight[columns], x.dtype)[..., None]
        samples.append(m.where(inside[..., None], read * weight, 0))
    if mode == "avg":
        count = np.maximum(counts.prod(1), 1)[:, None, None, None]
        pooled = m.stack(samples).sum((0, 4, 5)) / count
    else:
        counted_rows, counted_columns = (np.arange(most) < counts[:, axis, None] for axis in (0, 1))
        counted = counted_rows[:, None, None, :, None] & counted_columns[:, None, None, None, :]
        pooled = m.where(counted[..., None], m.stack(samples).max(0), -np.inf).max((3, 4))
        pooled = m.where(np.all(counts > 0, 1, keepdims=True)[..., None, None], pooled, 0)
    return astype(m.moveaxis(pooled, -1, 1), x.dtype)


@op("RoiAlign")
@in_float32
def roi_align_10(
    x: Value,
    rois: Value,
    batch: Value,
    /,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Value:
    """Returns the mean or maximum of bilinear samples in each bin of each region of interest (He et al. 2017)."""
    return _roi_align(x, rois, batch, mode, (output_height, output_width), sampling_ratio, spatial_scale, False)


@op("RoiAlign", since=16)
@in_float32
def roi_align(
    x: Value,
    rois: Value,
    batch: Value,
    /,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Value:
    """Returns the mean or maximum of bilinear samples in each bin of each region of interest (He et al. 2017)."""
    half = coordinate_transformation_mode == "half_pixel"
    return _roi_align(x, rois, batch, mode, (output_height, output_width), sampling_ratio, spatial_scale, half)


@op("MaxRoiPool")
@in_float32
def max_roi_pool(x: Value, rois: Value, /, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0) -> Value:
    """Returns the largest entry of each bin of each region, whose borders are whole pixels; 0 for an empty bin."""
    m = xp(x, rois)
    check_made((rois.shape[0], *x.shape[1:], pooled_shape[0]))
    scaled = rois[:, 1:] * np.asarray(spatial_scale, rois.dtype)
    corners = m.trunc(scaled + m.copysign(np.asarray(0.5, rois.dtype), scaled))  # halves away from zero
    low, high = corners[:, 1::-1], corners[:, :1:-1]
    extent = m.maximum(high - low + 1, 1)
    best = m.asarray(x)[astype(rois[:, 0], np.int32)]
    filled: Any = True
    for axis, (bins, size) in enumerate(zip(pooled_shape, x.shape[2:], strict=True)):
        bin_size = extent[:, axis, None] / bins
        edge = np.arange(bins + 1).astype(bin_size.dtype)  # in the regions' type, whose rounding decides borders
        first = m.clip(low[:, axis, None] + m.floor(edge[:-1] * bin_size), 0, size)
        last = m.clip(low[:, axis, None] + m.ceil(edge[1:] * bin_size), 0, size)
        pixel = np.arange(size)
        inside = (pixel >= first[..., None]) & (pixel < last[..., None])  # (rois, bins, size)
        shape = (inside.shape[0], 1, *((bins, size, 1) if axis == 0 else (1, bins, size)))
        best = m.where(inside.reshape(shape), m.expand_dims(best, 2 + axis), -np.inf).max(3 + axis)
        bins_shape = (inside.shape[0], 1, *((bins, 1) if axis == 0 else (1, bins)))
        filled = filled & inside.any(2).reshape(bins_shape)
    return astype(m.where(filled, best, 0), x.dtype)


@op("DeformConv")
@in_float32
def deform_conv(
    x: Value,
    w: Value,
    offset: Value,
    b: Value = None,
    mask: Value = None,
    /,
    *,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """Convolves with taps whose positions are shifted by `offset` and weighted by `mask` (Zhu et al. 2019)."""
    m, n, (count, channels) = xp(x, w, offset, b, mask), x.ndim - 2, x.shape[:2]
    taps, out = w.shape[2:], offset.shape[2:]
    strides, dilations, pads = strides or (1,) * n, dilations or (1,) * n, pads or (0,) * (2 * n)
    total = math.prod(taps)
    if channels % offset_group or w.shape[0] % group or channels != w.shape[1] * group:
        raise InvalidInputError("Channels divide into the groups", got=f"{x.shape}, {w.shape}, {group}, {offset_group}")
    check_made((count, channels, total, *out))
    check_window_reads(count * w.shape[0] * math.prod(w.shape[1:]) * math.prod(out))
    check_written_out(2**n)
    shifts = offset.reshape(count * offset_group, total, n, *out)
    positions = []
    for axis in range(n):
        start = np.arange(out[axis]) * strides[axis] - pads[axis]
        tap = np.arange(taps[axis]) * dilations[axis]
        tap = np.broadcast_to(tap.reshape((-1,) + (1,) * (n - 1 - axis)), taps).reshape(-1)
        regular = tap.reshape((-1,) + (1,) * n) + start.reshape((-1,) + (1,) * (n - 1 - axis))
        positions.append(shifts[:, :, axis] + astype(regular, offset.dtype))
    grouped = x.reshape(count * offset_group, channels // offset_group, *x.shape[2:])
    batch = np.arange(count * offset_group).reshape((-1,) + (1,) * (n + 1))
    read: Value = 0
    for corner in itertools.product(*(_taps(p, "linear") for p in positions)):
        read = read + _read(grouped, batch, [p for p, _ in corner], 0) * math.prod(v for _, v in corner)[..., None]
    if mask is not None:
        read = read * mask.reshape(count * offset_group, total, *out)[..., None]
    columns = m.moveaxis(read, -1, 1).reshape(count, group, channels // group * total, math.prod(out))
    filters = w.reshape(group, w.shape[0] // group, channels // group * total)
    y = m.matmul(filters, columns, **({} if m is np else {"precision": HIGHEST})).reshape(count, w.shape[0], *out)
    return astype(y if b is None else y + b.reshape((-1,) + (1,) * n), x.dtype)


@op("NonMaxSuppression")
def non_max_suppression(
    boxes: Static,
    scores: Static,
    most: Static = None,
    overlap: Static = None,
    threshold: Static = None,
    /,
    *,
    center_point_box: int = 0,
) -> Value:
    """Returns (batch, class, box) of the best boxes that overlap no better one; boxes and scores must be known."""
    if not concrete(boxes, scores):
        raise NotStaticError("Boxes and scores must be known", got="traced ones")
    if not scores.size:
        return np.zeros((0, 3), np.int64)
    count = 0 if most is None else int(np.ravel(most)[0])
    limit = 0.0 if overlap is None else float(np.ravel(overlap)[0])
    if center_point_box:
        half = boxes[..., 2:] / 2
        low, high = boxes[..., :2] - half, boxes[..., :2] + half
    else:
        low, high = np.minimum(boxes[..., :2], boxes[..., 2:]), np.maximum(boxes[..., :2], boxes[..., 2:])
    area = (high - low).prod(-1)
    selected = []
    for batch, group in itertools.product(range(scores.shape[0]), range(scores.shape[1])):
        score = scores[batch, group]
        candidates = np.argsort(-score, kind="stable")
        if threshold is not None:
            candidates = candidates[score[candidates] > float(np.ravel(threshold)[0])]
        n_selected = 0
        while candidates.size and n_selected < count:
            best, candidates, n_selected = candidates[0], candidates[1:], n_selected + 1
            selected.append((batch, group, best))
            upper, lower = (
                np.minimum(high[batch, best], high[batch, candidates]),
                np.maximum(low[batch, best], low[batch, candidates]),
            )
            shared = np.maximum(upper - lower, 0).prod(-1)
            union = area[batch, best] + area[batch, candidates] - shared
            candidates = candidates[~(shared > limit * union)]
    return np.asarray(selected, np.int64).reshape(-1, 3)
