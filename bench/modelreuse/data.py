"""Three tasks of 32 x 32 colour images: a rich one to pre-train on, and two of other kinds to transfer to.

objects   rendered, any number, 60 classes: ten shapes in two surfaces, 26 letters, 14 materials
digits    scikit-learn's handwritten digits, scaled, turned, coloured, over rendered backgrounds: 10 classes
pictures  crops of 17 pictures of scikit-image, labelled by picture; colours, contrast and orientation vary
imagenet  the same crops without labels: inputs for roots that were trained on ImageNet

Training and test images never share a digit, or a part of a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

SIDE = 32
SOURCE, TARGETS = "objects", ("digits", "pictures")
CLASSES = {"objects": 60, "digits": 10, "pictures": 17, "imagenet": 1000}
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
_SHAPES, _LETTERS = 10, 26
_PICTURES = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png", "grass.png",
    "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "page.png", "retina.jpg",
    "rocket.jpg", "text.png",
)  # fmt: skip
Images = UInt8[np.ndarray, "n 32 32 3"]


@dataclass(frozen=True)
class Split:
    """Images in 0..255 and their labels."""

    x: Images
    y: Int[np.ndarray, " n"]


@dataclass(frozen=True)
class Task:
    """A data set: training images, and test images that no model is trained on."""

    name: str
    classes: int
    train: Split
    test: Split


def make_task(name: str, n_train: int, n_test: int, seed: int) -> Task:
    """Renders a task; the same arguments give the same images. Labels of `imagenet` are 0: they are unknown."""
    maker = {"objects": _objects, "digits": _digits, "pictures": _pictures, "imagenet": _unlabelled}[name]
    parts = []
    for i, (part, n) in enumerate((("train", n_train), ("test", n_test))):
        x, y = maker(np.random.default_rng([seed, i, len(name)]), n, part)
        parts.append(Split(np.round(np.clip(x, 0, 1) * 255).astype(np.uint8), y))
    return Task(name, CLASSES[name], parts[0], parts[1])


def _objects(rng: np.random.Generator, n: int, part: str) -> tuple[Float[np.ndarray, "n 32 32 3"], np.ndarray]:
    del part  # rendered images of both parts differ
    y = rng.integers(0, CLASSES["objects"], n)
    x = np.empty((n, SIDE, SIDE, 3))
    ends = (0, 2 * _SHAPES, 2 * _SHAPES + _LETTERS, CLASSES["objects"])
    for make, low, high in zip((_shapes, _letters, _materials), ends, ends[1:], strict=False):
        rows = np.flatnonzero((y >= low) & (y < high))
        x[rows] = make(rng, y[rows] - low)
    return x + rng.normal(0, 0.02, x.shape), y


def _shapes(rng: np.random.Generator, y: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n 32 32 3"]:
    """Renders shape y % 10, flat or striped, lit from a side."""
    n, shape, striped = len(y), y % _SHAPES, y >= _SHAPES
    angle, size = rng.uniform(0, 2 * np.pi, n), rng.uniform(0.6, 0.95, n)
    u, v = _turned(rng.uniform(-0.2, 0.2, (n, 2)), angle, size)
    outside = np.empty((n, SIDE, SIDE))
    for s in range(_SHAPES):
        rows = np.flatnonzero(shape == s)
        outside[rows] = _outside(s, u[rows], v[rows])
    mask = 1 / (1 + np.exp(np.clip(outside * (size * SIDE / 2)[:, None, None] * 2, -30, 30)))[..., None]
    turn, pitch = rng.uniform(0, np.pi, n), rng.uniform(6, 9, n)
    wave = np.sin((u * np.cos(turn)[:, None, None] + v * np.sin(turn)[:, None, None]) * pitch[:, None, None])
    share = (np.where(striped[:, None, None], wave, 1.0) * 0.5 + 0.5)[..., None]
    background = _backgrounds(rng, n)
    one = _unlike(rng, background.mean((1, 2))[None])
    two = _unlike(rng, np.stack([background.mean((1, 2)), one]))
    surface = one[:, None, None] * share + two[:, None, None] * (1 - share)
    light = 1 + 0.3 * np.clip(u * np.cos(angle)[:, None, None] + v * np.sin(angle)[:, None, None], -1, 1)[..., None]
    return background * (1 - mask) + surface * light * mask


def _letters(rng: np.random.Generator, y: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n 32 32 3"]:
    """Renders capital letters in Pillow's default font, moved, turned a little, and scaled."""
    from PIL import Image, ImageDraw, ImageFont

    font, masks = ImageFont.load_default(26), []
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        page = Image.new("L", (SIDE, SIDE))
        ImageDraw.Draw(page).text((SIDE // 2, SIDE // 2), letter, 255, font, anchor="mm", stroke_width=1)
        masks.append(np.asarray(page) / 255)
    return _drawn(rng, np.stack(masks)[y])


def _materials(rng: np.random.Generator, y: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n 32 32 3"]:
    """Renders surfaces that fill the image, in two colours: stripes, checks, dots, bricks, weave and noise."""
    n = len(y)
    u, v = (
        axis * 16
        for axis in _turned(rng.uniform(-1, 1, (n, 2)), rng.uniform(0, 2 * np.pi, n), rng.uniform(0.7, 1.4, n))
    )
    fields = [_interpolated(rng.normal(0, 1, (n, cells + 1, cells + 1))) for cells in (3, 8, 16)]
    white = rng.normal(0, 1, (n, SIDE, SIDE))
    row = np.floor(v / 5)
    brick = np.minimum(np.abs(v / 5 - row - 0.5), np.abs(np.mod(u / 9 + row / 2, 1) - 0.5) * 1.8)
    patterns = [
        np.sin(u * 1.5),
        np.sin(u * 0.5),
        np.sign(np.sin(u * 0.7) * np.sin(v * 0.7)),
        np.where(np.sin(u * 0.9) * np.sin(v * 0.9) > 0.4, 1.0, -1.0),
        np.where(brick < 0.4, 1.0, -1.0),
        white,
        fields[2] * 1.5,
        np.sign(fields[1]),
        np.sin(np.hypot(u, v) * 0.9),
        fields[0] * 1.5,
        np.where(white > 2.2, 3.0, -1.0),
        np.where((np.mod(v, 5) < 2.5) & (fields[2] > -0.3), 1.0, -1.0),
        1 - 4 * np.abs(fields[1]),
        np.where(np.mod(np.floor(u / 3) + np.floor(v / 3), 2) > 0, np.sin(u * 2), np.sin(v * 2)),
    ]
    field = np.empty((n, SIDE, SIDE))
    for kind, values in enumerate(patterns):
        field[y == kind] = values[y == kind]
    one = _colours(rng, n)
    two = _unlike(rng, one[None])
    share = 1 / (1 + np.exp(-2 * (field + 0.4 * fields[0])))[..., None]
    return one[:, None, None] * share + two[:, None, None] * (1 - share)


def _turned(middle: np.ndarray, angle: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the coordinates of all pixels in moved, turned and scaled frames: two arrays (n, 32, 32)."""
    line = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    dy, dx = line[None, :, None] - middle[:, 0, None, None], line[None, None, :] - middle[:, 1, None, None]
    cos, sin = (np.cos(angle) / size)[:, None, None], (np.sin(angle) / size)[:, None, None]
    return dx * cos + dy * sin, dy * cos - dx * sin


def _outside(shape: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Returns the distance of places from a shape of about unit size; negative inside."""
    r, turn = np.hypot(u, v), np.arctan2(v, u)

    def polygon(sides: int) -> np.ndarray:
        wedge = np.mod(turn, 2 * np.pi / sides) - np.pi / sides
        return r * np.cos(wedge) - 0.75

    if shape == 0:
        return r - 0.8
    if shape <= 3:
        return polygon((3, 4, 6)[shape - 1])
    if shape == 4:
        return r - (0.65 + 0.3 * np.cos(5 * turn))  # star
    if shape == 5:
        return np.abs(r - 0.65) - 0.2  # ring
    if shape == 6:
        return np.maximum(np.minimum(np.abs(u), np.abs(v)) - 0.22, np.maximum(np.abs(u), np.abs(v)) - 0.85)  # cross
    if shape == 7:
        return np.maximum(r - 0.85, 0.62 - np.hypot(u - 0.4, v))  # crescent
    if shape == 8:
        return np.maximum(np.abs(u) - 0.95, np.abs(v) - 0.3)  # bar
    return np.maximum(np.maximum(-v - 0.6, v - 0.6), np.abs(u) - 0.2 - 0.6 * (v > 0.1))  # tee


def _colours(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.uniform(0.05, 0.95, (n, 3))


def _unlike(rng: np.random.Generator, others: np.ndarray) -> np.ndarray:
    """Draws six colours and returns the one farthest from the nearest of `others` (m, n, 3): (n, 3)."""
    drawn = rng.uniform(0, 1, (6, others.shape[1], 3))
    distance = np.linalg.norm(drawn[:, None] - others, axis=-1).min(axis=1)
    return drawn[distance.argmax(0), np.arange(others.shape[1])]


def _backgrounds(rng: np.random.Generator, n: int) -> np.ndarray:
    """Renders smooth backgrounds of two colours, some with fine grain: (n, 32, 32, 3)."""
    field = np.zeros((n, SIDE, SIDE))
    for cells in (2, 4, 8):
        field += _interpolated(rng.normal(0, 1, (n, cells + 1, cells + 1))) / np.sqrt(cells)
    field += rng.normal(0, 1, field.shape) * rng.choice([0.0, 0.25], n)[:, None, None]
    share = 1 / (1 + np.exp(-2 * field))[..., None]
    one, two = _colours(rng, n)[:, None, None], _colours(rng, n)[:, None, None]
    return one * share + two * (1 - share)


def _interpolated(knots: np.ndarray) -> np.ndarray:
    """Interpolates values at the corners of a grid to (n, 32, 32), bilinearly."""
    cells = knots.shape[1] - 1
    position = (np.arange(SIDE) + 0.5) / SIDE * cells
    low = np.minimum(position.astype(int), cells - 1)
    share = position - low
    rows = knots[:, low] * (1 - share)[:, None] + knots[:, low + 1] * share[:, None]
    return rows[:, :, low] * (1 - share) + rows[:, :, low + 1] * share


def _digits(rng: np.random.Generator, n: int, part: str) -> tuple[Float[np.ndarray, "n 32 32 3"], np.ndarray]:
    from sklearn.datasets import load_digits

    dataset = load_digits()
    order = np.random.default_rng(0).permutation(len(dataset.target))  # one split for all seeds
    available = order[:1200] if part == "train" else order[1200:]
    rows = rng.choice(available, n)
    x = _drawn(rng, dataset.images[rows] / 16)
    return x + rng.normal(0, 0.03, x.shape), dataset.target[rows]


def _drawn(rng: np.random.Generator, ink: Float[np.ndarray, "n s s"]) -> Float[np.ndarray, "n 32 32 3"]:
    """Renders signs on rendered backgrounds: moved, a little turned and scaled, light on dark or dark on light."""
    n, side = ink.shape[:2]
    u, v = _turned(rng.uniform(-0.25, 0.25, (n, 2)), rng.normal(0, 0.2, n), rng.uniform(0.55, 0.9, n))
    framed = np.pad(ink, ((0, 0), (1, 2), (1, 2)))
    y, x = (np.clip((axis + 1) * side / 2 + 0.5, 0, side + 0.999) for axis in (v, u))
    top, left = y.astype(int), x.astype(int)
    down, right, row = y - top, x - left, np.arange(n)[:, None, None]
    upper = framed[row, top, left] * (1 - right) + framed[row, top, left + 1] * right
    lower = framed[row, top + 1, left] * (1 - right) + framed[row, top + 1, left + 1] * right
    mask = (upper * (1 - down) + lower * down)[..., None]
    background = _backgrounds(rng, n)
    dark = background.mean((1, 2, 3)) < 0.5
    colour = np.where(dark[:, None], rng.uniform(0.55, 1, (n, 3)), rng.uniform(0, 0.45, (n, 3)))
    return background * (1 - mask) + colour[:, None, None] * mask


def _pictures(rng: np.random.Generator, n: int, part: str) -> tuple[Float[np.ndarray, "n 32 32 3"], np.ndarray]:
    import skimage
    from PIL import Image

    folder = Path(skimage.__file__).parent / "data"
    y = rng.integers(0, len(_PICTURES), n)
    x = np.empty((n, SIDE, SIDE, 3))
    for label, name in enumerate(_PICTURES):
        with Image.open(folder / name) as opened:
            picture = opened.convert("RGB")
        width, height = picture.size
        cut = int(height * 0.7)
        box = (0, 0, width, cut) if part == "train" else (0, cut, width, height)
        picture = picture.crop(box)
        for row in np.flatnonzero(y == label):
            x[row] = _crop(rng, picture)
    for axis in (1, 2):
        flip = rng.random(n) < 0.5
        x[flip] = np.flip(x[flip], axis)
    gain, lift = rng.uniform(0.6, 1.4, (n, 1, 1, 3)), rng.uniform(-0.15, 0.15, (n, 1, 1, 3))
    grey = (rng.random(n) < 0.5)[:, None, None, None]
    x = np.where(grey, x.mean(-1, keepdims=True), x)
    return (x - 0.5) * gain + 0.5 + lift + rng.normal(0, 0.02, x.shape), y


def _unlabelled(rng: np.random.Generator, n: int, part: str) -> tuple[Float[np.ndarray, "n 32 32 3"], np.ndarray]:
    x, y = _pictures(rng, n, part)
    return x, np.zeros_like(y)


def _crop(rng: np.random.Generator, picture: object) -> np.ndarray:
    """Returns a random square crop that is not of one colour, scaled to 32 x 32."""
    from PIL import Image

    assert isinstance(picture, Image.Image)
    width, height = picture.size
    small = np.zeros((SIDE, SIDE, 3))
    for _ in range(20):
        size = int(rng.integers(40, min(96, width, height) + 1))
        left, top = int(rng.integers(0, width - size + 1)), int(rng.integers(0, height - size + 1))
        small = np.asarray(
            picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, (left, top, left + size, top + size))
        )
        small = small / 255
        if small.std() > 0.04:
            break
    return small
