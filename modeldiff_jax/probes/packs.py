"""Packs of built-in seeds: any number, of any size, from a key alone and without a download.

Seed i of a pack depends on the key and on i only, so fewer seeds are the first of more. A pack's content never changes
under its name; a better one gets a new version.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from modeldiff_jax.errors import MissingExtraError
from modeldiff_jax.models.inputs.space import Kind, ProbeSpace

Rng = np.random.Generator


def pack_seeds(name: str, space: ProbeSpace, n: int, key: int) -> np.ndarray:
    """Returns N seeds of a pack, (N, *space.shape) in the space's dtype and range.

    Args:
      name: name of a pack of `PACKS` for the space's kind.
      key: non-negative.
    """
    make = PACKS[name][1]
    stream = int.from_bytes(name.encode(), "little")
    seeds = np.empty((n, *space.shape), space.dtype)
    for i in range(n):
        seeds[i] = make(np.random.default_rng([key, stream, i]), space)
    return seeds


# Images ------------------------------------------------------------------------------------------------------------


def _image(rng: Rng, space: ProbeSpace) -> np.ndarray:
    """Draws a crop of a photograph or a texture, with shapes and lines of text over it; recoloured."""
    height, width, channels = space.shape
    draw = rng.random()
    pixels = _photo(rng, height, width) if draw < 0.65 else _texture(rng, height, width)
    if draw > 0.5:
        pixels = _shapes(rng, pixels)
    if rng.random() < 0.4 and min(height, width) >= 16:  # without text, detectors and readers of text react to nothing
        pixels = _text(rng, pixels)
    image = _recolour(rng, pixels)
    if channels == 1:
        return image @ np.array([[0.299], [0.587], [0.114]], np.float32)
    return image if channels == 3 else np.concatenate([image, np.ones_like(image[..., :1])], axis=2)


@lru_cache(maxsize=1)
def _photographs() -> tuple[Any, ...]:
    try:
        from PIL import Image
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise MissingExtraError(
            "The built-in images come with scikit-learn and Pillow",
            got=str(error),
            fix="pip install scikit-learn pillow, or pass your seeds",
        ) from error
    return tuple(Image.fromarray(image) for image in load_sample_images().images)


def _photo(rng: Rng, height: int, width: int) -> np.ndarray:
    from PIL import Image

    photos = _photographs()
    photo = photos[rng.integers(len(photos))]
    largest = min(photo.width / width, photo.height / height)
    scale = largest * math.exp(rng.uniform(math.log(0.12), 0))
    w, h = width * scale, height * scale
    left, top = rng.uniform(0, photo.width - w), rng.uniform(0, photo.height - h)
    crop = photo.resize((width, height), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h))
    pixels = np.asarray(crop)
    pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
    return pixels[::-1] if rng.random() < 0.1 else pixels


def _texture(rng: Rng, height: int, width: int) -> np.ndarray:
    """Draws smooth noise of a few octaves and gratings, through a palette of random colours."""
    from PIL import Image

    field = np.zeros((height, width), np.float32)
    rough = rng.uniform(0.3, 1.0)
    for octave in range(rng.integers(1, 6)):
        cells = 2 ** (octave + 1) + 1
        grid = Image.fromarray(rng.random((cells, cells), np.float32))
        field += rough**octave * np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))
    y, x = np.linspace(0, 1, height, dtype=np.float32)[:, None], np.linspace(0, 1, width, dtype=np.float32)[None]
    for _ in range(rng.integers(0, 3)):
        angle, waves = rng.uniform(0, math.pi), np.exp(rng.uniform(0, math.log(max(2.0, min(height, width) / 4))))
        phase = 2 * math.pi * (waves * (x * math.cos(angle) + y * math.sin(angle)) + rng.random())
        field += np.float32(rng.uniform(0.1, 0.6)) * np.sin(phase, dtype=np.float32)
    field = (field - field.min()) / max(float(np.ptp(field)), 1e-6)
    palette = rng.random((rng.integers(2, 6), 3))
    stops = np.linspace(0, 255, len(palette))
    table = np.stack([np.interp(np.arange(256), stops, palette[:, c]) for c in range(3)], axis=1)
    return (table * 255).astype(np.uint8)[(field * 255).astype(np.uint8)]


def _shapes(rng: Rng, pixels: np.ndarray) -> np.ndarray:
    from PIL import Image, ImageDraw

    image = Image.fromarray(np.ascontiguousarray(pixels))
    canvas = ImageDraw.Draw(image)
    size = np.array([image.width, image.height, image.width, image.height])
    for _ in range(rng.integers(1, 7)):
        corners = rng.random(4)
        ends = np.sort(corners.reshape(2, 2), axis=0).reshape(-1)  # left, top, right, bottom
        box = [int(v) for v in ends * size]
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        kind = rng.integers(4)
        if kind == 0:
            canvas.rectangle(box, fill=colour)
        elif kind == 1:
            canvas.ellipse(box, fill=colour)
        elif kind == 2:
            canvas.polygon([tuple(p) for p in (rng.random((3, 2)) * size[:2]).astype(int).tolist()], fill=colour)
        else:
            canvas.line(box, fill=colour, width=max(1, int(rng.uniform(0.01, 0.1) * min(image.size))))
    return np.asarray(image)


def _text(rng: Rng, pixels: np.ndarray) -> np.ndarray:
    """Draws one or two lines of words in a contrasting colour."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(np.ascontiguousarray(pixels))
    canvas = ImageDraw.Draw(image)
    for _ in range(rng.integers(1, 3)):
        words = [*_pick(rng, _WORDS, int(rng.integers(1, 4))), b"%d" % rng.integers(10_000)]
        line = b" ".join(words[i] for i in rng.permutation(len(words))).decode()
        line = (line, line.upper(), line.title())[rng.integers(3)]
        size = max(9.0, rng.uniform(0.15, 0.5) * min(image.size))
        place = rng.uniform(-0.05, 0.3) * image.width, rng.uniform(0, 1) * (image.height - size)
        light = pixels.mean() < 128
        colour = tuple(int(c) for c in (rng.integers(200, 256, 3) if light else rng.integers(0, 56, 3)))
        canvas.text(place, line, font=ImageFont.load_default(size), fill=colour)
    return np.asarray(image)


def _recolour(rng: Rng, pixels: np.ndarray) -> np.ndarray:
    """Maps bytes to [0, 1] with random gain, offset and gamma; sometimes swaps channels or takes the negative."""
    levels = np.linspace(0, 1, 256)
    levels = 1 - levels if rng.random() < 0.1 else levels
    order = rng.permutation(3) if rng.random() < 0.3 else np.arange(3)
    gain, offset, gamma = rng.uniform(0.7, 1.3, 3), rng.uniform(-0.15, 0.15, 3), np.exp(rng.uniform(-0.4, 0.4))
    tables = (np.clip((levels[:, None] - 0.5) * gain + 0.5 + offset, 0, 1) ** gamma).astype(np.float32)
    return np.stack([tables[:, target].take(pixels[..., source]) for target, source in enumerate(order)], axis=2)


# Signals -----------------------------------------------------------------------------------------------------------


def _signal(rng: Rng, space: ProbeSpace) -> np.ndarray:
    """Mixes one to four sounds, each a chirp, a harmonic tone, filtered noise or a voiced burst."""
    (length,) = space.shape
    sounds = (_chirp, _tone, _noise, _voice)
    total = np.zeros(length, np.float32)
    for _ in range(rng.integers(1, 5)):
        sound = sounds[rng.integers(len(sounds))](rng, length)
        strength = rng.uniform(0.2, 1.0) / max(float(np.abs(sound).max()), 1e-9)
        total += np.float32(strength) * sound * _envelope(rng, length)
    total += np.float32(10 ** rng.uniform(-4, -1.5)) * rng.standard_normal(length, np.float32)  # no recording is silent
    middle, half = (space.high + space.low) / 2, (space.high - space.low) / 2
    return np.float32(middle) + np.float32(half * rng.uniform(0.05, 0.95)) * (total / np.abs(total).max())


def _pitch(rng: Rng, low: float = 0.003, high: float = 0.2) -> float:
    """Draws cycles per sample, uniform on a logarithmic scale: 48 Hz to 3.2 kHz at 16 kHz."""
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


def _sine(cycles: np.ndarray) -> np.ndarray:
    """Returns the sine of a phase in cycles, reduced to one turn first, so that float32 is exact enough, and fast."""
    return np.sin((2 * math.pi * (cycles - np.floor(cycles))).astype(np.float32))


def _envelope(rng: Rng, length: int) -> np.ndarray:
    """Draws an envelope: attack, then decay, somewhere in the signal; a fifth of them are constant."""
    if rng.random() < 0.2:
        return np.ones(length, np.float32)
    onset, attack, decay = rng.uniform(-0.3, 0.7), rng.uniform(0.005, 0.2), rng.uniform(0.1, 1.0)
    after = np.maximum(np.linspace(0, 1, length, dtype=np.float32) - np.float32(onset), 0)
    return (1 - np.exp(-after / np.float32(attack))) * np.exp(-after / np.float32(decay))


def _chirp(rng: Rng, length: int) -> np.ndarray:
    return _sine(np.cumsum(np.geomspace(_pitch(rng), _pitch(rng), length)) + rng.random())


def _tone(rng: Rng, length: int) -> np.ndarray:
    pitch, slope, start = _pitch(rng, high=0.05), rng.uniform(0.5, 2.0), rng.random()
    vibrato = rng.uniform(0, 0.02) * _sine(rng.uniform(0.0002, 0.001) * np.arange(length))
    cycles = start + np.cumsum(pitch * (1 + vibrato.astype(np.float64)))
    total = np.zeros(length, np.float32)
    for harmonic in range(1, max(2, min(9, int(0.45 / pitch)))):
        total += _sine(harmonic * cycles) * np.float32(harmonic**-slope)
    return total


def _noise(rng: Rng, length: int) -> np.ndarray:
    centre, width, tilt = _pitch(rng, 0.01, 0.4), rng.uniform(0.3, 2.0), rng.uniform(0, 1.5)
    frequency = np.maximum(np.fft.rfftfreq(length), 0.5 / length).astype(np.float32)
    octaves = np.log(frequency / np.float32(centre))
    band = np.exp(-0.5 * (octaves / np.float32(width)) ** 2 - np.float32(tilt / 2) * octaves)
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(length, np.float32)) * band, length)


def _voice(rng: Rng, length: int) -> np.ndarray:
    """Draws a pulse train through three resonances, like a vowel at 16 kHz."""
    glide = 0.1 * _sine(rng.uniform(0, 2) * np.linspace(0, 1, length)).astype(np.float64)
    pulses = np.diff(np.floor(np.cumsum(rng.uniform(0.005, 0.02) * (1 + glide)) + rng.random()), prepend=0)
    frequency = np.fft.rfftfreq(length).astype(np.float32)
    response = np.full(frequency.shape, 0.01, np.float32)
    for low, high, strength in ((0.015, 0.06, 1.0), (0.05, 0.15, 0.6), (0.13, 0.22, 0.3)):
        centre, bandwidth = np.float32(rng.uniform(low, high)), np.float32(rng.uniform(0.004, 0.012))
        response += np.float32(strength) / (1 + ((frequency - centre) / bandwidth) ** 2)
    return np.fft.irfft(np.fft.rfft((pulses - pulses.mean()).astype(np.float32)) * response, length)


# Tokens ------------------------------------------------------------------------------------------------------------

_WORDS = (
    b"the of and to in a is that for it as was with be by on not he his but at are this have from or had an they "
    b"which one you were all her she there would their we him been has when who will no more if out so up said what "
    b"its about than into them can only other time new some could these two may first then do any like my now over"
).split()
_NAMES = b"data index value result node count name size key buffer self item".split()
_HEADS = (b"\x89PNG\r\n\x1a\n", b"\x7fELF\x02\x01\x01", b"PK\x03\x04", b"GIF89a", b"%PDF-1.7\n", b"MZ\x90")


def _tokens(rng: Rng, space: ProbeSpace) -> np.ndarray:
    """Draws unstructured, skewed or repetitive tokens, or bytes of files if the vocabulary has 256 or more."""
    (length,), low, count = space.shape, int(space.low), int(space.high - space.low) + 1
    if count >= 256 and rng.random() < 0.6:
        return low + _padded(rng, _file(rng, length), length, count)
    kind = rng.integers(3)
    if kind == 0:
        drawn = rng.integers(0, count, length)
    elif kind == 1:  # Zipf over a random order of the vocabulary
        weights = np.cumsum(1 / np.arange(1.0, count + 1) ** rng.uniform(0.7, 1.5))
        ranks = np.searchsorted(weights / weights[-1], rng.random(length))
        drawn = rng.permutation(count)[np.minimum(ranks, count - 1)]
    else:  # a few n-grams in random order, some tokens replaced
        grams = rng.integers(0, count, (rng.integers(1, 9), rng.integers(1, 9)))
        drawn = grams[rng.integers(0, len(grams), length // grams.shape[1] + 1)].reshape(-1)[:length]
        drawn = np.where(rng.random(length) < 0.05, rng.integers(0, count, length), drawn)
    return low + _padded(rng, drawn, length, count)


def _padded(rng: Rng, drawn: np.ndarray, length: int, count: int) -> np.ndarray:
    """Returns a sequence that is padded early in a third of cases, by 256 where that is a token, else by 0."""
    used = length if rng.random() < 0.67 else int(rng.integers(1, length + 1))
    padding = 256 if count > 256 else 0
    return np.concatenate([drawn[:used], np.full(length - min(used, len(drawn)), padding)])


def _file(rng: Rng, length: int) -> np.ndarray:
    """Draws bytes that resemble prose, code, a table, markup or a binary file."""
    makers: tuple[Callable[[Rng], bytes], ...] = (_sentence, _statement, _record, _element)
    kind = rng.integers(len(makers) + 1)
    if kind < len(makers):
        parts: list[bytes] = []
        while sum(map(len, parts)) < length:
            parts.append(makers[kind](rng))
        return np.frombuffer(b"".join(parts)[:length], np.uint8).astype(np.int64)
    head = np.frombuffer(_HEADS[rng.integers(len(_HEADS))], np.uint8)
    body = rng.integers(0, 256, length) * (np.repeat(rng.random(length // 16 + 1), 16)[:length] < rng.uniform(0.3, 1.0))
    return np.concatenate([head, body])[:length]


def _pick(rng: Rng, words: Any, n: int) -> list[bytes]:
    return [words[i] for i in rng.integers(0, len(words), n)]


def _sentence(rng: Rng) -> bytes:
    words = b" ".join(_pick(rng, _WORDS, int(rng.integers(4, 16))))
    return words.capitalize() + (b". ", b"? ", b".\n\n")[rng.integers(3)]


def _statement(rng: Rng) -> bytes:
    a, b, c = _pick(rng, _NAMES, 3)
    number = str(int(rng.integers(0, 4096))).encode()
    return (
        b"    %s = %s[%s] + %s\n" % (a, b, c, number),
        b"def %s(%s, %s=%s):\n" % (a, b, c, number),
        b"    if (%s < %s) { return %s; }\n" % (a, number, b),
        b"for %s in range(%s):\n    %s.%s()\n" % (a, number, b, c),
    )[rng.integers(4)]


def _record(rng: Rng) -> bytes:
    values = [b"%.3f" % v for v in rng.normal(0, 100, 3)]
    return b",".join([*_pick(rng, _NAMES, 1), *values]) + b"\n"


def _element(rng: Rng) -> bytes:
    (tag, attribute), text = _pick(rng, _NAMES, 2), b" ".join(_pick(rng, _WORDS, 4))
    return b'<%s %s="%d">%s</%s>\n' % (tag, attribute, int(rng.integers(100)), text, tag)


# Generic ---------------------------------------------------------------------------------------------------------


def _generic(rng: Rng, space: ProbeSpace) -> np.ndarray:
    """Draws Gaussian, uniform, sparse or smooth values along the last axis, at a random scale."""
    shape = space.shape
    kind = rng.integers(4)
    if kind == 0:
        drawn = rng.normal(0, 0.4, shape)
    elif kind == 1:
        drawn = rng.uniform(-1, 1, shape)
    elif kind == 2:
        drawn = rng.normal(0, 0.7, shape) * (rng.random(shape) < rng.uniform(0.02, 0.3))
        drawn.flat[rng.integers(space.size)] = rng.uniform(0.5, 1)  # never all zero
    else:
        length = shape[-1] if shape else 1
        decay = np.exp(-np.arange(length // 2 + 1) / max(1.0, length * rng.uniform(0.01, 0.1)))
        waves = np.fft.rfft(rng.normal(0, 1, shape or (1,))) * decay
        drawn = np.fft.irfft(waves, length).reshape(shape)
        drawn = drawn / max(float(np.abs(drawn).max()), 1e-9)
    scaled = np.clip(drawn * rng.uniform(0.3, 1.0), -1, 1)
    return np.asarray((space.high + space.low) / 2 + scaled * (space.high - space.low) / 2)


PACKS: dict[str, tuple[Kind, Callable[[Rng, ProbeSpace], np.ndarray]]] = {
    "image-v1": ("image", _image),
    "signal-v1": ("signal", _signal),
    "tokens-v1": ("tokens", _tokens),
    "generic-v1": ("generic", _generic),
}
"""Pack name -> the kind of space it is for, and the function that makes one seed."""
