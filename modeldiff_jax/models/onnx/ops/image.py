"""Images: decoded, cropped or padded around their centre, and reassembled from blocks."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.limits import check_image, check_made
from modeldiff_jax.models.graph.registry import Static
from modeldiff_jax.models.graph.values import Value, add_at, axis_indices, in_float32, sizes, xp
from modeldiff_jax.models.onnx.registration import op

_FORMATS = ("BMP", "JPEG", "JPEG2000", "TIFF", "PNG", "WEBP", "PPM")  # those the operator's definition names


@op("ImageDecoder")
def image_decoder(encoded: Static, /, *, pixel_format: str = "RGB") -> Value:
    """Returns the pixels (height, width, channels) of an encoded image, whose bytes must be known."""
    from PIL import Image  # few models hold this operator

    modes = {"RGB": "RGB", "BGR": "RGB", "Grayscale": "L"}
    if pixel_format not in modes:
        raise InvalidInputError(f"pixel_format is one of {', '.join(modes)}", got=pixel_format)
    with Image.open(io.BytesIO(encoded.tobytes()), formats=_FORMATS) as image:
        check_image(*image.size)
        pixels = np.asarray(image.convert(modes[pixel_format]))
    if pixel_format == "BGR":
        return np.ascontiguousarray(pixels[..., ::-1])
    return pixels if pixels.ndim == 3 else pixels[..., None]


@op("CenterCropPad")
def center_crop_pad(x: Value, shape: Static, /, *, axes: Sequence[int] | None = None) -> Value:
    """Crops `x` around its centre along axes that are too long, and pads it with zeros along those too short."""
    indices = tuple(range(x.ndim)) if axes is None else axis_indices(axes, x.ndim)
    new_sizes = dict(zip(indices, sizes(shape), strict=True))
    crop, padding = [slice(None)] * x.ndim, [(0, 0)] * x.ndim
    for axis, size in new_sizes.items():
        added = size - x.shape[axis]
        if added < 0:
            crop[axis] = slice(-added // 2, -added // 2 + size)
        elif added > 0:
            padding[axis] = (added // 2, added - added // 2)
    check_made([new_sizes.get(axis, size) for axis, size in enumerate(x.shape)])
    return xp(x).pad(x[tuple(crop)], padding)


@op("Col2Im")
@in_float32
def col2im(
    x: Value,
    image_shape: Static,
    block_shape: Static,
    /,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """Adds up blocks, the columns of `x`, at their positions in the image."""
    image, block = sizes(image_shape), sizes(block_shape)
    n = len(image)
    dilations, strides, pads = dilations or (1,) * n, strides or (1,) * n, pads or (0,) * (2 * n)
    padded = [size + pads[i] + pads[n + i] for i, size in enumerate(image)]
    check_made((*x.shape, *block))
    check_made((x.shape[0], x.shape[1], *padded))
    flat = np.zeros((1,) * (2 * n), np.int64)
    for axis in range(n):
        steps = np.arange(0, padded[axis] - dilations[axis] * (block[axis] - 1), strides[axis])
        position = np.arange(block[axis])[:, None] * dilations[axis] + steps
        shape = [1] * (2 * n)
        shape[axis], shape[n + axis] = position.shape
        flat = flat * padded[axis] + position.reshape(shape)
    channels, total = x.shape[1] // math.prod(block), math.prod(block)
    index, columns = flat.reshape(-1), x.reshape(x.shape[0], channels, total * x.shape[2])
    y = add_at(np.zeros((x.shape[0], channels, math.prod(padded)), x.dtype), index, columns)
    inside = tuple(slice(pads[i], pads[i] + size) for i, size in enumerate(image))
    return y.reshape(x.shape[0], channels, *padded)[(slice(None), slice(None), *inside)]
