"""Loads seeds, from a built-in pack, an array, a file of arrays or a folder of images, into a probe space."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modeldiff_jax.errors import InvalidInputError, MissingExtraError, ModelDiffError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.array_file import read_arrays
from modeldiff_jax.models.inputs.space import ProbeSpace
from modeldiff_jax.probes.packs import PACKS, pack_seeds
from modeldiff_jax.runtime.regular_file import open_regular

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".webp": "WEBP", ".gif": "GIF"}
_IMAGE_FORMATS = tuple(sorted(set(_FORMATS.values())))
_USUAL_NAMES = ("seeds", "images", "x", "inputs", "data", "x_test", "x_train", "arr_0")
_CHANNELS = (3, 1, 4)


def load_seeds(
    source: Any, space: ProbeSpace, n: int, key: int, *, at_most: bool = False, limits: Limits = DEFAULT
) -> tuple[np.ndarray, str]:
    """Loads `n` seeds into a probe space.

    A user's seeds are used once each: from more than `n`, `n` are drawn without replacement.

    Args:
      source: None for the built-in pack of the space's kind, a pack's name, an array, a `.npy` or `.npz` file, or a
        folder of images. Images are cropped to the space's aspect about their centre and resized, and may be
        (N, H, W), (N, H, W, C) or (N, C, H, W), integers in [0, 255] or floats in [0, 1]; signals (N, T) or with a
        channel axis, integer PCM or floats in [-1, 1]; longer signals and token sequences are cut.
      space: shape, dtype and range of the seeds.
      n: number of seeds.
      key: random key, non-negative.
      at_most: accepts fewer than `n` seeds, but at least two.
      limits: limits on files.
    Returns:
      (n, *space.shape) in the space's dtype and range, C-ordered, and one line on where they came from.
    Raises:
      InvalidInputError: missing, damaged, empty, too few, of the wrong shape, type or range, no regular file, or
        changed while it was read.
      LimitExceededError: a file is too large.
    """
    if n < 1 or key < 0:
        raise InvalidInputError("Seeds need n >= 1 and key >= 0", got=f"n={n}, key={key}", where="seeds")
    if source is None:
        source = next(name for name, (kind, _) in PACKS.items() if kind == space.kind)
    if isinstance(source, str) and source in PACKS:
        if PACKS[source][0] != space.kind:
            raise _bad(f"A pack of {space.kind} seeds is needed", f"`{source}`", "seeds")
        return pack_seeds(source, space, n, key), f"built-in {source}"
    available = _open(source, limits)
    if at_most and available.count > 1:
        n = min(n, available.count)
    if available.count < n:
        fewer = f"give more seeds, or choose fewer pairs: n_pairs={available.count} (--pairs {available.count})"
        raise InvalidInputError(
            f"Each of the {n} pairs needs one seed",
            got=f"{available.count} seeds",
            where=available.where,
            fix=fewer if available.count > 1 else "give more seeds",
        )
    rng = np.random.default_rng(key)
    chosen = np.arange(n) if available.count == n else np.sort(rng.permutation(available.count)[:n])
    seeds = _CONVERT[space.kind](available.take(chosen, space), space, rng, available.where)
    used = f"{n} of {available.count}" if available.count > n else f"all {n}"
    return np.ascontiguousarray(seeds, space.dtype), f"{available.where}, {used}"


@dataclass(frozen=True)
class _Source:
    """Seeds that are not read yet.

    Attributes:
      where: the file, folder or array, for messages.
      count: number of seeds.
      take: reads those of the given numbers into one array.
    """

    where: str
    count: int
    take: Callable[[np.ndarray, ProbeSpace], np.ndarray]


def _open(source: Any, limits: Limits) -> _Source:
    if not isinstance(source, str | os.PathLike):
        return _from_array(source, "array")
    path = Path(source)
    if path.is_dir():
        return _from_folder(path, limits)
    if not path.exists():
        raise InvalidInputError(
            "Seeds are a folder of images, a .npy or .npz file, or a built-in pack",
            got="no such file or folder",
            where=str(path),
            fix=f"check the path; the packs are {', '.join(PACKS)}",
        )
    arrays = read_arrays(path, limits, "seed_bytes")
    by_name = {name.lower(): array for name, array in arrays.items()}
    name = next(iter(by_name)) if len(by_name) == 1 else next((u for u in _USUAL_NAMES if u in by_name), None)
    if name is None:
        names = ", ".join(sorted(arrays)) or "no array"
        raise _bad(f"A seed file holds one array, or one named {' or '.join(_USUAL_NAMES)}", names, str(path))
    return _from_array(by_name[name], str(path))


def _from_array(values: Any, where: str) -> _Source:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" and array.dtype.name not in ("bfloat16", "float16"):
        raise _bad("Seeds are numbers", f"dtype {array.dtype}", where)
    if array.ndim < 1 or array.size == 0:
        raise _bad("Seeds are an array whose first axis counts them", f"shape {array.shape}", where)
    text = where if where != "array" else f"array {array.dtype}{list(array.shape)}"
    return _Source(text, len(array), lambda chosen, space: array[chosen])


# Folders of images -------------------------------------------------------------------------------------------------


def _from_folder(folder: Path, limits: Limits) -> _Source:
    files: list[Path] = []
    listed = 0
    for parent, _, names in os.walk(folder):
        listed += len(names)
        limits.check("seed_files", listed, where=str(folder))
        files += [Path(parent) / name for name in names if Path(name).suffix.lower() in _FORMATS]
    if not files:
        kinds = ", ".join(sorted(_FORMATS))
        raise _bad("A seed folder holds images", f"none of {kinds} among {listed} files", str(folder))
    files.sort(key=lambda file: file.relative_to(folder).as_posix())

    def take(chosen: np.ndarray, space: ProbeSpace) -> np.ndarray:
        if space.kind != "image":
            raise _bad(f"Seeds for {space} are needed", "a folder of images", str(folder))
        seeds = np.empty((len(chosen), *space.shape), np.float32)
        decoded = 0
        for row, i in enumerate(chosen):
            image = _decode(files[i], space.shape[2], limits, decoded)
            decoded += image.size
            seeds[row] = _fit_images(image[None], space)[0]
        return seeds

    return _Source(f"folder {folder}", len(files), take)


def _decode(file: Path, channels: int, limits: Limits, decoded: int) -> np.ndarray:
    """Reads one image file into (H, W, channels) float32 in [0, 1]."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingExtraError("Images are read by Pillow", got=str(error), fix="pip install pillow") from error
    try:
        # Pillow maps some files that it opens by their names, and a mapped file may be cut short
        with open_regular(file, "A seed image") as stream, Image.open(stream, formats=_IMAGE_FORMATS) as image:
            limits.check("image_pixels", image.width * image.height, where=str(file))
            limits.check("seed_bytes", decoded + image.width * image.height * channels, where=str(file))
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith(("I", "F")):  # 16 bits, which `convert` would cut off
                levels = np.asarray(upright, np.float32)[..., None] / (65535 if upright.mode != "F" else 1)
                return _with_channels(np.clip(levels, 0, 1), channels)
            pixels = np.asarray(upright.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels]), np.float32)
            return pixels.reshape(*pixels.shape[:2], channels) / 255
    except ModelDiffError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds for a damaged file
        raise InvalidInputError(
            "A seed image must be a whole PNG, JPEG, BMP, WebP or GIF",
            got=f"{type(error).__name__}: {error}",
            where=str(file),
            fix="remove or replace the file",
        ) from error


# Arrays to the space -----------------------------------------------------------------------------------------------


def _images(values: np.ndarray, space: ProbeSpace, rng: np.random.Generator, where: str) -> np.ndarray:
    if values.ndim == 3 and values.shape[2] not in (3, 4):
        values = values[..., None]
    if values.ndim == 4 and values.shape[3] not in _CHANNELS and values.shape[1] in _CHANNELS:
        values = np.moveaxis(values, 1, 3)
    if values.ndim != 4 or values.shape[3] not in _CHANNELS:
        raise _bad("Image seeds are (N, H, W), (N, H, W, C) or (N, C, H, W)", f"shape {values.shape}", where)
    floats = _finite(values, where)
    if values.dtype.kind in "iu" or (floats.max() > 1 and (floats == np.round(floats)).all()):
        floats = floats / 255 if values.dtype.itemsize < 8 or floats.max() > 1 else floats
    if floats.min() < 0 or floats.max() > 1:
        got = f"values from {values.min():g} to {values.max():g}"
        raise _bad("Image seeds are integers in [0, 255] or floats in [0, 1]", got, where)
    return _fit_images(floats, space)


def _fit_images(images: np.ndarray, space: ProbeSpace) -> np.ndarray:
    """Returns images (N, H, W, C) in [0, 1], cropped to the space's aspect about the centre and then resized."""
    height, width, channels = space.shape
    h, w = images.shape[1:3]
    if h * width > w * height:
        kept = max(1, round(w * height / width))
        images = images[:, (h - kept) // 2 : (h - kept) // 2 + kept]
    elif h * width < w * height:
        kept = max(1, round(h * width / height))
        images = images[:, :, (w - kept) // 2 : (w - kept) // 2 + kept]
    images = _with_channels(images, channels)
    if images.shape[1:3] == (height, width):
        return images
    return np.clip(np.stack([_resize(image, height, width) for image in images]), 0, 1)


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    from PIL import Image

    planes = (Image.fromarray(np.ascontiguousarray(image[..., c], np.float32)) for c in range(image.shape[2]))
    return np.stack([np.asarray(p.resize((width, height), Image.Resampling.BILINEAR)) for p in planes], axis=2)


def _with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    if images.shape[-1] == channels:
        return images
    colours = images[..., :3]
    if channels == 1:
        return colours @ np.array([[0.299], [0.587], [0.114]], np.float32)
    colours = np.repeat(colours, 3, axis=-1) if colours.shape[-1] == 1 else colours
    return colours if channels == 3 else np.concatenate([colours, np.ones_like(colours[..., :1])], axis=-1)


def _signals(values: np.ndarray, space: ProbeSpace, rng: np.random.Generator, where: str) -> np.ndarray:
    (length,) = space.shape
    signals = values.reshape(len(values), -1) if max(values.shape[1:], default=0) == values[0].size else values
    if signals.ndim != 2 or signals.shape[1] < length:
        raise _bad(f"Signal seeds are (N, {length}) or longer, one channel", f"shape {values.shape}", where)
    floats = _finite(signals, where)
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        half = (limits.max + 1) / 2
        floats = (floats - half) / half if limits.min == 0 else floats / -float(limits.min)
    if np.abs(floats).max() > 1:
        raise _bad("Signal seeds are integer PCM or floats in [-1, 1]", f"{np.abs(floats).max():g}", where)
    starts = rng.integers(0, signals.shape[1] - length + 1, len(signals))
    return np.stack([row[start : start + length] for row, start in zip(floats, starts, strict=True)])


def _tokens(values: np.ndarray, space: ProbeSpace, rng: np.random.Generator, where: str) -> np.ndarray:
    (length,) = space.shape
    tokens = values.reshape(len(values), -1)
    if values.dtype.kind not in "iu" or tokens.shape[1] < length:
        got = f"{values.dtype} of shape {values.shape}"
        raise _bad(f"Token seeds are integers of shape (N, {length}) or longer", got, where)
    tokens = tokens[:, :length]
    if tokens.min() < space.low or tokens.max() > space.high:
        rule = f"Token seeds lie in [{space.low:g}, {space.high:g}]"
        raise _bad(rule, f"values from {tokens.min()} to {tokens.max()}", where)
    return tokens


def _generic(values: np.ndarray, space: ProbeSpace, rng: np.random.Generator, where: str) -> np.ndarray:
    if values[0].size != space.size:
        raise _bad(f"Seeds are (N, {', '.join(map(str, space.shape))})", f"shape {values.shape}", where)
    floats = _finite(values, where)
    if floats.min() < space.low or floats.max() > space.high:
        lowest, highest = float(floats.min()), float(floats.max())
        raise InvalidInputError(
            f"Seeds lie in the range of the probe space, [{space.low:g}, {space.high:g}]",
            got=f"values from {lowest:g} to {highest:g}",
            where=where,
            fix=f"state the model's range: InputHint(value_range=({lowest:g}, {highest:g}))",
        )
    return floats.reshape(-1, *space.shape)


_CONVERT = {"image": _images, "signal": _signals, "tokens": _tokens, "generic": _generic}


def _finite(values: np.ndarray, where: str) -> np.ndarray:
    """Returns the values as float32; raises unless all are finite."""
    floats = values.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(floats).reshape(len(floats), -1).all(axis=1))
    if bad.size:
        raise _bad("Seeds are finite", f"NaN or infinity in {bad.size} seeds, the first of them seed {bad[0]}", where)
    return floats


def _bad(rule: str, got: str, where: str) -> InvalidInputError:
    return InvalidInputError(rule, got=got, where=where, fix="pass other seeds, or none to use the built-in ones")
