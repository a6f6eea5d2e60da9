"""`scipy.spatial.distance` on this package's kernels: import this module in its place.

    from modeldiff_jax import distance
    distance.cdist(a, b, "cosine")

The type of the arrays decides how they are computed:

- numpy arrays, lists and the like: scipy's arguments, checks, errors, shapes and results. Numpy out, float64, computed
  in float64 on the CPU, whatever JAX's settings.
- jax arrays, traced ones too: the kernels of this package. Jax out, float32, on the arrays' device, accurate to a
  relative 1e-5 for near vectors, with gradients; for the metrics they have, without weights and `out`.

Two differences from scipy, both on purpose. Complex vectors are refused for every metric, where scipy drops the
imaginary part for some. And a distance of vectors with NaN is NaN, where scipy's chebyshev ignores NaN and its
jensenshannon returns 0 between two vectors with NaN.

`cdist` and `pdist` are ours: most time is spent in them. The functions of one pair, `squareform` and the checks of
matrices are scipy's objects, so other code recognises them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from scipy.spatial.distance import (
    braycurtis,
    canberra,
    chebyshev,
    cityblock,
    correlation,
    cosine,
    dice,
    directed_hausdorff,
    euclidean,
    hamming,
    is_valid_dm,
    is_valid_y,
    jaccard,
    jensenshannon,
    mahalanobis,
    minkowski,
    num_obs_dm,
    num_obs_y,
    rogerstanimoto,
    russellrao,
    seuclidean,
    sokalsneath,
    sqeuclidean,
    squareform,
    yule,
)

from modeldiff_jax.compat.distance.float64 import distances
from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import pairwise_distances

__all__ = [
    "braycurtis",
    "canberra",
    "cdist",
    "chebyshev",
    "cityblock",
    "correlation",
    "cosine",
    "dice",
    "directed_hausdorff",
    "euclidean",
    "hamming",
    "is_valid_dm",
    "is_valid_y",
    "jaccard",
    "jensenshannon",
    "mahalanobis",
    "minkowski",
    "num_obs_dm",
    "num_obs_y",
    "pdist",
    "rogerstanimoto",
    "russellrao",
    "seuclidean",
    "sokalsneath",
    "sqeuclidean",
    "squareform",
    "yule",
]

_PAIR_FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(braycurtis, canberra, chebyshev, cityblock, correlation, cosine, dice, euclidean, hamming, jaccard),
        *(
            jensenshannon,
            mahalanobis,
            minkowski,
            rogerstanimoto,
            russellrao,
            seuclidean,
            sokalsneath,
            sqeuclidean,
            yule,
        ),
    )
}
_ALIASES = {
    **{name: name for name in _PAIR_FUNCTIONS},
    **dict.fromkeys(("chebychev", "cheby", "cheb", "ch"), "chebyshev"),
    **dict.fromkeys(("cblock", "cb", "c"), "cityblock"),
    **dict.fromkeys(("co",), "correlation"),
    **dict.fromkeys(("cos",), "cosine"),
    **dict.fromkeys(("euclid", "eu", "e"), "euclidean"),
    **dict.fromkeys(("matching", "hamm", "ha", "h"), "hamming"),
    **dict.fromkeys(("jacc", "ja", "j"), "jaccard"),
    **dict.fromkeys(("js",), "jensenshannon"),
    **dict.fromkeys(("mahal", "mah"), "mahalanobis"),
    **dict.fromkeys(("mi", "m", "pnorm"), "minkowski"),
    **dict.fromkeys(("se", "s"), "seuclidean"),
    **dict.fromkeys(("sqe", "sqeuclid"), "sqeuclidean"),
}
_PAIR_PREFIX = "test_"
"""scipy's prefix for a metric computed by its function of one pair."""
_BOOLEAN = ("dice", "rogerstanimoto", "russellrao", "sokalsneath", "yule")
"""Metrics whose function of one pair takes booleans."""
_BOOLEAN_OR_REAL = ("hamming", "jaccard")
"""Metrics whose function of one pair takes booleans if the vectors are boolean."""
_CONVERTING = ("correlation", "cosine", "jensenshannon", "mahalanobis", "seuclidean")
"""Metrics for which scipy accepts all that numpy can convert to float64; the others take real numbers only."""


def cdist(XA: Any, XB: Any, metric: Any = "euclidean", *, out: np.ndarray | None = None, **kwargs: Any) -> Any:
    """Returns the distance of each row of `XA` to each row of `XB`, as `scipy.spatial.distance.cdist` does.

    Args:
      XA: (N, C), real numbers.
      XB: (K, C), real numbers.
      metric: one of scipy's names, or a function of two vectors.
      out: C-contiguous float64 array (N, K) for the result.
      **kwargs: options of the metric: `w`, weights of the entries; `p` for minkowski; `V` for seuclidean; `VI` for
        mahalanobis; `base` for jensenshannon.

    Returns:
      (N, K): numpy float64, or jax float32 if both arguments are jax arrays.

    Raises:
      InvalidInputError: shapes, dtypes or options do not fit, or an unknown metric; it is a ValueError.
      TypeError: `metric` is neither a string nor a function, or an option is not one of the metric's.
    """
    if isinstance(XA, jax.Array) and isinstance(XB, jax.Array):
        return pairwise_distances(XA, XB, _kernel_metric(metric, out, kwargs))
    a, b = np.asarray(XA), np.asarray(XB)
    for name, x in (("XA", a), ("XB", b)):
        if x.ndim != 2:
            raise InvalidInputError(f"{name} must be a 2-dimensional array", got=f"shape {x.shape}", where="cdist")
    if a.shape[1] != b.shape[1]:
        raise InvalidInputError(
            "XA and XB must have the same number of columns", got=f"{a.shape} and {b.shape}", where="cdist"
        )
    return _in_float64(a, b, metric, out, kwargs, "cdist")


def pdist(X: Any, metric: Any = "euclidean", *, out: np.ndarray | None = None, **kwargs: Any) -> Any:
    """Returns the distances between the rows of `X` in condensed form, as `scipy.spatial.distance.pdist` does.

    Args:
      X: (N, C), real numbers.
      metric: as in `cdist`.
      out: C-contiguous float64 array (N (N - 1) / 2,) for the result.
      **kwargs: as in `cdist`.

    Returns:
      (N (N - 1) / 2,): numpy float64, or jax float32 if `X` is a jax array. `squareform` makes a matrix of it.

    Raises:
      InvalidInputError: as in `cdist`.
      TypeError: as in `cdist`.
    """
    if isinstance(X, jax.Array):
        return pairwise_distances(X, None, _kernel_metric(metric, out, kwargs), condensed=True)
    x = np.asarray(X)
    if x.ndim != 2:
        raise InvalidInputError("A 2-dimensional array must be passed", got=f"shape {x.shape}", where="pdist")
    return _in_float64(x, None, metric, out, kwargs, "pdist")


def _kernel_metric(metric: Any, out: Any, kwargs: dict[str, Any]) -> str:
    """Returns the name of a metric for the kernels, which have no `out` and no options."""
    name = getattr(metric, "__name__", metric)
    if out is not None or any(value is not None for value in kwargs.values()):
        raise InvalidInputError(
            "jax arrays are served without `out` and options of the metric",
            got=", ".join(("out", *kwargs) if out is not None else kwargs),
            fix="pass numpy arrays",
        )
    return _ALIASES.get(str(name).lower(), str(name))


def _in_float64(
    a: np.ndarray, b: np.ndarray | None, metric: Any, out: np.ndarray | None, kwargs: dict[str, Any], where: str
) -> np.ndarray:
    if not callable(metric) and not isinstance(metric, str):
        raise TypeError("2nd argument metric must be a string identifier or a function.")
    name = metric.lower() if isinstance(metric, str) else getattr(metric, "__name__", "")
    metric_name = _ALIASES.get(name.removeprefix(_PAIR_PREFIX) if isinstance(metric, str) else name)
    if metric_name is None and isinstance(metric, str):
        raise InvalidInputError(f"The metric is one of {', '.join(_PAIR_FUNCTIONS)}", got=repr(metric), where=where)
    if metric_name is None:
        values = _pair_by_pair(a, b, metric, kwargs)
    else:
        pair = _PAIR_FUNCTIONS[metric_name] if isinstance(metric, str) else metric
        by_pairs = name.startswith(_PAIR_PREFIX) or pair is not _PAIR_FUNCTIONS[metric_name]
        converts = metric_name in _CONVERTING or by_pairs or callable(metric)
        left, right = (None if x is None else _as_float64(x, metric_name, where, converts) for x in (a, b))
        assert left is not None
        options: Callable[..., dict[str, Any]] = _OPTIONS.get(metric_name, _weights)
        kwargs = options(metric_name, left, right, **kwargs)
        if by_pairs:
            boolean = metric_name in _BOOLEAN or (metric_name in _BOOLEAN_OR_REAL and a.dtype == bool)
            if boolean:
                left, right = left.astype(bool), None if right is None else right.astype(bool)
            values = _pair_by_pair(left, right, pair, kwargs)
        else:
            values = _matrix(metric_name, left, right, kwargs)
    if out is None:
        return values
    if out.shape != values.shape or not out.flags.c_contiguous or out.dtype != np.float64:
        raise InvalidInputError(
            f"`out` is a C-contiguous float64 array of shape {values.shape}",
            got=f"{out.dtype} of shape {out.shape}",
            where=where,
        )
    np.copyto(out, values)
    return out


def _as_float64(x: np.ndarray, metric: str, where: str, converts: bool) -> np.ndarray:
    """Converts vectors to float64, in a new array because jax may read its arguments later than the call returns.

    Args:
      x: vectors.
      metric: for messages.
      where: for messages.
      converts: whether to accept all that numpy can convert (strings of digits, objects), or real numbers only.
    """
    if x.dtype.kind in "biuf" or (converts and x.dtype.kind != "c"):
        return np.array(x, np.float64, order="C")
    raise InvalidInputError(
        f"The vectors of {metric} hold real numbers",
        got=f"dtype {x.dtype}",
        where=where,
        fix="convert them: x.astype(float)",
    )


def _pair_by_pair(a: np.ndarray, b: np.ndarray | None, pair: Callable[..., Any], kwargs: dict[str, Any]) -> np.ndarray:
    if b is None:
        values = [pair(a[i], a[j], **kwargs) for i in range(len(a)) for j in range(i + 1, len(a))]
        return np.array(values, np.float64)
    return np.array([[pair(u, v, **kwargs) for v in b] for u in a], np.float64).reshape(len(a), len(b))


def _weights(metric: str, a: np.ndarray, b: np.ndarray | None, **kwargs: Any) -> dict[str, Any]:
    """Checks the options of metrics that take weights."""
    allowed = {"minkowski": ("w", "p"), "jensenshannon": ("base",)}.get(metric, ("w",))
    for option in kwargs:
        if option not in allowed:
            raise TypeError(f"{metric} got an unexpected keyword argument {option!r}")
    if kwargs.get("p", 2) <= 0:
        raise InvalidInputError("p must be greater than 0", got=str(kwargs["p"]), where=metric)
    if kwargs.get("w") is None:
        return {option: value for option, value in kwargs.items() if option != "w"}
    w = np.asarray(kwargs["w"], np.float64)
    if w.shape != (a.shape[1],) or (w < 0).any():
        raise InvalidInputError(
            f"Weights are {a.shape[1]} numbers, as many as a vector has entries, none negative",
            got=f"shape {w.shape}, least {w.min() if w.size else None}",
            where=metric,
        )
    return {**kwargs, "w": w}


def _variances(metric: str, a: np.ndarray, b: np.ndarray | None, V: Any = None) -> dict[str, Any]:
    """Checks the variances of seuclidean, or computes them from all vectors."""
    if V is None:
        return {"V": np.var(a if b is None else np.vstack([a, b]), axis=0, ddof=1)}
    V = np.asarray(V, np.float64)
    if V.shape != (a.shape[1],):
        raise InvalidInputError(f"V is {a.shape[1]} variances", got=f"shape {V.shape}", where=metric)
    return {"V": V}


def _inverse_covariances(metric: str, a: np.ndarray, b: np.ndarray | None, VI: Any = None) -> dict[str, Any]:
    """Checks the inverse covariances of mahalanobis, or computes them from all vectors."""
    if VI is not None:
        return {"VI": np.asarray(VI, np.float64)}
    rows = a if b is None else np.vstack([a, b])
    if rows.shape[0] <= rows.shape[1]:
        raise InvalidInputError(
            f"The covariance of {rows.shape[1]} dimensions takes at least {rows.shape[1] + 1} vectors",
            got=str(rows.shape[0]),
            where=metric,
            fix="give VI",
        )
    return {"VI": np.linalg.inv(np.atleast_2d(np.cov(rows.T))).T}


_OPTIONS: dict[str, Callable[..., dict[str, Any]]] = {"mahalanobis": _inverse_covariances, "seuclidean": _variances}


def _matrix(metric: str, a: np.ndarray, b: np.ndarray | None, kwargs: dict[str, Any]) -> np.ndarray:
    if metric == "mahalanobis":
        return np.sqrt(_quadratic_form(a, b, kwargs["VI"]))
    if metric == "seuclidean":
        metric, kwargs = "euclidean", {"w": 1 / kwargs["V"]}
    others = a if b is None else b
    if min(a.shape[0], others.shape[0], a.shape[1]) == 0:
        values = np.zeros((a.shape[0], others.shape[0]))
    else:
        values = distances(metric, a, others, kwargs.get("w"), float(kwargs.get("p", 2)))
    if metric == "jensenshannon" and kwargs.get("base") is not None:
        values /= np.sqrt(np.log(kwargs["base"]))
    return values if b is not None else values[np.triu_indices(len(a), 1)]


def _quadratic_form(a: np.ndarray, b: np.ndarray | None, VI: np.ndarray) -> np.ndarray:
    """Computes (u - v) VI (u - v)^T row by row, so that no array is larger than the vectors."""
    if b is None:
        rows = [a[i] - a[i + 1 :] for i in range(len(a))]
        return np.concatenate([np.einsum("kc,kc->k", d @ VI, d) for d in rows]) if rows else np.zeros(0)
    return np.stack([np.einsum("kc,kc->k", d @ VI, d) for d in (u - b for u in a)])
