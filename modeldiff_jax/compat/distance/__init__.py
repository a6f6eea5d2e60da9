"""`scipy.spatial.distance` by our kernels: import this module in its place.

    from modeldiff_jax import distance
    distance.cdist(a, b, "cosine")

What the arrays are decides how they are served:

- numpy arrays, lists and the like: scipy's arguments, checks, errors, shapes and results: numpy, float64, computed in
  float64 on the CPU whatever JAX's own settings say.
- jax arrays, traced ones too: the kernels of this package: jax, float32, on the arrays' device, accurate to a relative
  1e-5 for near vectors, with gradients; for the metrics they have, without weights and `out`.

`cdist` and `pdist` are ours, where the time goes. The functions of one pair, `squareform` and the checks of matrices
are scipy's own objects, so that other code recognises them.
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

_PAIRS: dict[str, Callable[..., Any]] = {
    one.__name__: one
    for one in (
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
    **{name: name for name in _PAIRS},
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
_OF_BOOLEANS = ("dice", "rogerstanimoto", "russellrao", "sokalsneath", "yule")
_BOOLEANS_TOO = ("hamming", "jaccard")
_DEFINED = "test_"  # scipy's prefix for the metric by its function of one pair


def cdist(XA: Any, XB: Any, metric: Any = "euclidean", *, out: np.ndarray | None = None, **kwargs: Any) -> Any:
    """Distance of each row of `XA` to each of `XB`; arguments and errors as `scipy.spatial.distance.cdist` has them.

    Args:
      XA: (N, C). XB: (K, C).
      metric: a name of scipy's, or a function of two vectors.
      out: float64 array for the result.
      **kwargs: of the metric: `w`, weights of the entries; `p` for minkowski; `V` for seuclidean; `VI` for mahalanobis.

    Returns:
      (N, K): numpy float64, or jax float32 if both arguments are jax arrays.
    """
    if isinstance(XA, jax.Array) and isinstance(XB, jax.Array):
        return pairwise_distances(XA, XB, _for_kernels(metric, out, kwargs))
    a, b = np.asarray(XA), np.asarray(XB)
    for name, x in (("XA", a), ("XB", b)):
        if x.ndim != 2:
            raise InvalidInputError(f"{name} must be a 2-dimensional array", got=f"shape {x.shape}", where="cdist")
    if a.shape[1] != b.shape[1]:
        raise InvalidInputError(
            "XA and XB must have the same number of columns", got=f"{a.shape} and {b.shape}", where="cdist"
        )
    return _served(a, b, metric, out, kwargs, "cdist")


def pdist(X: Any, metric: Any = "euclidean", *, out: np.ndarray | None = None, **kwargs: Any) -> Any:
    """Distances between the rows of `X` in condensed form, as `scipy.spatial.distance.pdist` has them.

    Args:
      X: (N, C).
      metric: as in `cdist`. out, **kwargs: likewise.

    Returns:
      (N (N - 1) / 2,): numpy float64, or jax float32 if `X` is a jax array. `squareform` makes a matrix of it.
    """
    if isinstance(X, jax.Array):
        return pairwise_distances(X, None, _for_kernels(metric, out, kwargs), condensed=True)
    x = np.asarray(X)
    if x.ndim != 2:
        raise InvalidInputError("A 2-dimensional array must be passed", got=f"shape {x.shape}", where="pdist")
    return _served(x, None, metric, out, kwargs, "pdist")


def _for_kernels(metric: Any, out: Any, kwargs: dict[str, Any]) -> str:
    name = getattr(metric, "__name__", metric)
    if out is not None or any(value is not None for value in kwargs.values()):
        raise InvalidInputError(
            "jax arrays are served without `out` and options of the metric",
            got=", ".join(("out", *kwargs) if out is not None else kwargs),
            fix="pass numpy arrays",
        )
    return _ALIASES.get(str(name).lower(), str(name))


def _served(
    a: np.ndarray, b: np.ndarray | None, metric: Any, out: np.ndarray | None, kwargs: dict[str, Any], where: str
) -> np.ndarray:
    if not callable(metric) and not isinstance(metric, str):
        raise TypeError("2nd argument metric must be a string identifier or a function.")
    name = metric.lower() if isinstance(metric, str) else getattr(metric, "__name__", "")
    known = _ALIASES.get(name.removeprefix(_DEFINED) if isinstance(metric, str) else name)
    if known is None and isinstance(metric, str):
        raise InvalidInputError(f"The metric is one of {', '.join(_PAIRS)}", got=repr(metric), where=where)
    if known is not None:
        options: Callable[..., dict[str, Any]] = _OPTIONS.get(known, _weights)
        kwargs = options(known, *(None if x is None else x.astype(np.float64) for x in (a, b)), **kwargs)
    if known is None or name.startswith(_DEFINED) or (callable(metric) and metric is not _PAIRS[known]):
        pair = metric if callable(metric) else _PAIRS[str(known)]
        values = _pair_by_pair(_typed(known, a), None if b is None else _typed(known, b), pair, kwargs)
    else:
        values = _computed(known, a, b, kwargs)
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


def _pair_by_pair(a: np.ndarray, b: np.ndarray | None, pair: Callable[..., Any], kwargs: dict[str, Any]) -> np.ndarray:
    if b is None:
        each = [pair(a[i], a[j], **kwargs) for i in range(len(a)) for j in range(i + 1, len(a))]
        return np.array(each, np.float64)
    return np.array([[pair(u, v, **kwargs) for v in b] for u in a], np.float64).reshape(len(a), len(b))


def _typed(metric: str | None, x: np.ndarray) -> np.ndarray:
    """In the type in which the function of one pair takes the vectors."""
    if metric is None:
        return x
    booleans = metric in _OF_BOOLEANS or (metric in _BOOLEANS_TOO and x.dtype == bool)
    return np.ascontiguousarray(x, bool if booleans else np.float64)


def _weights(metric: str, a: np.ndarray, b: np.ndarray | None, **kwargs: Any) -> dict[str, Any]:
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
    if V is None:
        return {"V": np.var(a if b is None else np.vstack([a, b]), axis=0, ddof=1)}
    V = np.asarray(V, np.float64)
    if V.shape != (a.shape[1],):
        raise InvalidInputError(f"V is {a.shape[1]} variances", got=f"shape {V.shape}", where=metric)
    return {"V": V}


def _inverse_covariances(metric: str, a: np.ndarray, b: np.ndarray | None, VI: Any = None) -> dict[str, Any]:
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


def _computed(metric: str, a: np.ndarray, b: np.ndarray | None, kwargs: dict[str, Any]) -> np.ndarray:
    rows = a.astype(np.float64)  # a copy: jax lets go of what it is given later than the caller may expect
    others = rows if b is None else b.astype(np.float64)
    if metric == "mahalanobis":
        return np.sqrt(_quadratic(rows, None if b is None else others, kwargs["VI"]))
    if metric == "seuclidean":
        metric, kwargs = "euclidean", {"w": 1 / kwargs["V"]}
    if min(rows.shape[0], others.shape[0], rows.shape[1]) == 0:
        values = np.zeros((rows.shape[0], others.shape[0]))
    else:
        values = distances(metric, rows, others, kwargs.get("w"), kwargs.get("p", 2.0))
    if metric == "jensenshannon" and kwargs.get("base") is not None:
        values /= np.sqrt(np.log(kwargs["base"]))
    return values if b is not None else values[np.triu_indices(len(rows), 1)]


def _quadratic(a: np.ndarray, b: np.ndarray | None, VI: np.ndarray) -> np.ndarray:
    """(u - v) VI (u - v)^T from differences; row by row, so that no array is larger than the vectors."""
    if b is None:
        rows = [a[i] - a[i + 1 :] for i in range(len(a))]
        return np.concatenate([np.einsum("kc,kc->k", d @ VI, d) for d in rows]) if rows else np.zeros(0)
    return np.stack([np.einsum("kc,kc->k", d @ VI, d) for d in (u - b for u in a)])
