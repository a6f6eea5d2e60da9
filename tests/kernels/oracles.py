"""The distances in float64, by their textbook definitions: scipy where it has them. Pairs of vectors to scalars."""

import numpy as np
from scipy import stats
from scipy.spatial import distance
from scipy.special import rel_entr


def cosine(x, y):
    # Half the squared chord: 1 - cos loses in float64 what float32 keeps of a small distance.
    return np.sum((x / np.linalg.norm(x) - y / np.linalg.norm(y)) ** 2) / 2


def correlation(x, y):
    return cosine(x - x.mean(), y - y.mean())


def kl(x, y):
    return rel_entr(x / x.sum(), y / y.sum()).sum()


def jensenshannon(x, y):
    # scipy's, with what cancels between entries put together first, so that small distances are good
    x, y = x / x.sum(), y / y.sum()
    m, d = (x + y) / 2, (x - y) / 2
    x_part = x[x > 0] * np.log1p(d[x > 0] / m[x > 0])
    y_part = y[y > 0] * np.log1p(-d[y > 0] / m[y > 0])
    return np.sqrt((np.sum(x_part - d[x > 0]) + np.sum(y_part + d[y > 0]) - d[x == 0].sum() + d[y == 0].sum()) / 2)


PAIRED = {
    "chebyshev": distance.chebyshev,
    "cityblock": distance.cityblock,
    "correlation": correlation,
    "cosine": cosine,
    "euclidean": distance.euclidean,
    "hamming": distance.hamming,
    "jensenshannon": jensenshannon,
    "kl": kl,
    "sqeuclidean": distance.sqeuclidean,
}


def paired(a, b, metric):
    """(..., N, C) x2 -> (..., N), in float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    rows = zip(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]), strict=True)
    return np.array([PAIRED[metric](x, y) for x, y in rows]).reshape(a.shape[:-1])


def cosine_similarity(a, b):
    """(M, D), (K, D) -> (M, K), in float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


def pairwise(a, b, metric):
    """(..., N, C), (..., K, C) -> (..., N, K), in float64."""
    a, b = np.asarray(a), np.asarray(b)
    shape = (*a.shape[:-1], b.shape[-2], a.shape[-1])
    return paired(np.broadcast_to(a[..., :, None, :], shape), np.broadcast_to(b[..., None, :, :], shape), metric)


def pearson(a, b):
    """(M, D), (K, D) -> (M, K), in float64."""
    return np.array([[stats.pearsonr(x, y)[0] for y in np.asarray(b, np.float64)] for x in np.asarray(a, np.float64)])


def spearman(a, b):
    """(M, D), (K, D) -> (M, K), in float64."""
    return np.array([[stats.spearmanr(x, y)[0] for y in np.asarray(b)] for x in np.asarray(a)])
