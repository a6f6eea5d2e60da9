"""Vectors to take distances of."""

import numpy as np

SHAPE = (2, 5, 37)  # one for most tests, so that little is compiled


def vectors(shape, seed=0):
    """Two arrays of positive entries, a third of them equal, so that every metric has something to say."""
    rng = np.random.default_rng(seed)
    a, b = rng.gamma(1.0, size=(2, *shape)) + 0.05
    return a.astype(np.float32), np.where(rng.random(shape) < 0.3, a, b).astype(np.float32)


def near(shape, size, seed=0, kind="normal"):
    """Two arrays of vectors at cosine distances of about `size`, in float32."""
    rng = np.random.default_rng(seed)
    a, noise = rng.standard_normal((2, *shape))
    if kind == "softmax":  # few large entries, many tiny ones, all positive
        a = np.exp(3 * a)
        a /= a.sum(-1, keepdims=True)
        noise *= a
    elif kind == "common":  # a large part in common
        a = 1 + 0.01 * a
    noise *= (
        np.sqrt(2 * size) * np.linalg.norm(a, axis=-1, keepdims=True) / np.linalg.norm(noise, axis=-1, keepdims=True)
    )
    return a.astype(np.float32), (a + noise).astype(np.float32)
