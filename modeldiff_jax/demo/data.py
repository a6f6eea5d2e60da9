"""The demo's images: scikit-learn's 1,797 handwritten digits, distorted at random, and their label spaces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

SIDE = 8
N_TRAIN, N_TEST = 1296, 500
_DISTORTED = 3  # distorted copies of each training image
POOL = N_TRAIN * (1 + _DISTORTED)
"""Samples in each model's training pool: a whole number of batches."""


@dataclass(frozen=True)
class Task:
    """A task on digits: its label space, and each digit's label in it."""

    name: str
    classes: int
    label_of_digit: tuple[int, ...]

    def labels(self, digits: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Returns the label of each digit."""
        return np.asarray(self.label_of_digit)[digits]


DIGIT = Task("which digit", 10, tuple(range(10)))
REMAINDER = Task("remainder by 5", 5, tuple(digit % 5 for digit in range(10)))


@dataclass(frozen=True)
class Images:
    """Images of shape (n, 8, 8, 1) in [0, 1], and the digit on each."""

    pixels: Float[np.ndarray, "n 8 8 1"]
    digits: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.digits)

    def take(self, rows: Int[np.ndarray, " m"]) -> Images:
        """Returns some of the images."""
        return Images(self.pixels[rows], self.digits[rows])


def load_images(rng: np.random.Generator) -> tuple[Images, Images, Images]:
    """Loads training images, a pool of these and their distorted copies (training images first), and test images."""
    from sklearn.datasets import load_digits  # takes a second to import

    dataset = load_digits()
    order = rng.permutation(len(dataset.target))
    images = Images((dataset.images[order, ..., None] / 16).astype(np.float32), dataset.target[order])
    train, test = images.take(np.arange(N_TRAIN)), images.take(np.arange(N_TRAIN, N_TRAIN + N_TEST))
    distorted = [distort(train.pixels, rng) for _ in range(_DISTORTED)]
    pool = Images(np.concatenate([train.pixels, *distorted]), np.tile(train.digits, 1 + _DISTORTED))
    return train, pool, test


def distort(pixels: Float[np.ndarray, "n 8 8 1"], rng: np.random.Generator) -> Float[np.ndarray, "n 8 8 1"]:
    """Turns images by about 7 degrees, scales them by about 5 % and moves them by about 0.3 pixels; bilinear."""
    n, middle = len(pixels), (SIDE - 1) / 2
    angle, scale = rng.normal(0, 0.125, n), 1 + rng.normal(0, 0.05, n)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij")) - middle
    moved = rng.normal(0, 0.3, (n, 2))
    y, x = np.einsum("abn,bhw->anhw", turn, grid) + middle + moved.T[:, :, None, None]
    framed = np.pad(pixels[..., 0], ((0, 0), (1, 1), (1, 1)))
    y, x = (np.clip(axis + 1, 0, SIDE + 1 - 1e-6) for axis in (y, x))
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    down, right, row = y - top, x - left, np.arange(n)[:, None, None]
    upper = framed[row, top, left] * (1 - right) + framed[row, top, left + 1] * right
    lower = framed[row, top + 1, left] * (1 - right) + framed[row, top + 1, left + 1] * right
    return (upper * (1 - down) + lower * down).astype(np.float32)[..., None]


def thief_queries(pixels: Float[np.ndarray, "n 8 8 1"], rng: np.random.Generator) -> Float[np.ndarray, "n 8 8 1"]:
    """Makes a thief's queries: images, blends of two, and both with noise, to cover more of the function."""
    n = len(pixels)
    share = np.where(rng.random(n) < 0.5, 1.0, rng.random(n))[:, None, None, None]
    blend = share * pixels[rng.permutation(n)] + (1 - share) * pixels[rng.permutation(n)]
    noise = rng.normal(0, 0.1, blend.shape) * rng.random((n, 1, 1, 1))
    return np.clip(blend + noise, 0, 1).astype(np.float32)
