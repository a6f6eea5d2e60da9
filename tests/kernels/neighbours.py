"""Vectors to search among, and the search in float64."""

import numpy as np

from . import oracles

METRICS = ["cosine", "correlation", "dot", "euclidean", "sqeuclidean", "cityblock"]


def clustered(n, c, seed=0, clusters=20, spread=0.1):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, c))
    return (centres[rng.integers(0, clusters, n)] + spread * rng.standard_normal((n, c))).astype(np.float32)


def iid(n, c, seed=0):
    return np.random.default_rng(seed).standard_normal((n, c)).astype(np.float32)


def costs(queries, rows, metric):
    """(Q, C), (N, C) -> (Q, N): distances, or minus inner products, in float64; cosine's as half a squared chord."""
    q, r = np.asarray(queries, np.float64), np.asarray(rows, np.float64)
    if metric == "dot":
        return -(q @ r.T)
    return np.array([[oracles.PAIRED[metric](a, b) for b in r] for a in q])


def expected(cost, k):
    order = np.argsort(cost, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(cost, order, 1), order


def value(cost, metric):
    return 1 - cost if metric == "cosine" else -cost if metric == "dot" else cost
