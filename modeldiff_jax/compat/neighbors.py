"""scikit-learn's `pairwise_distances` and `NearestNeighbors(algorithm="brute")` by our kernels, in float32.

The estimator keeps scikit-learn's conventions (`get_params`, `set_params`, `clone`, attributes that end in `_` after
`fit`) without importing it. Arrays of any library in; numpy out, or jax where the queries are jax arrays. Neighbours at
one distance come in the order of their indices, which scikit-learn leaves open.
"""

from __future__ import annotations

from typing import Any, Literal, Self, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from modeldiff_jax import kernels
from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.inputs import ArrayInput, as_float32

__all__ = ["NearestNeighbors", "pairwise_distances"]

_NAMES = {"l1": "cityblock", "manhattan": "cityblock", "l2": "euclidean"}
_ROWS = 2**24  # distances made at once


def pairwise_distances(X: ArrayInput, Y: ArrayInput | None = None, metric: str = "euclidean") -> Any:
    """Distances between all rows of `X` and all of `Y`, or of `X` itself.

    Args:
      X: (N, C), finite. Y: (K, C).
      metric: a name of our kernels or of scikit-learn's, or "precomputed": `X` is the result, if it can be one.

    Returns:
      (N, K), float32: jax if `X` is a jax array, else numpy.

    Raises:
      InvalidInputError: not finite, shapes do not fit, or an unknown metric.
    """
    x, y = _matrix(X, "X"), None if Y is None else _matrix(Y, "Y")
    if metric == "precomputed":
        if x.shape[1] != (x if y is None else y).shape[0]:
            raise InvalidInputError("A precomputed matrix is (queries, indexed)", got=f"shape {x.shape}", where="X")
        return _like(X, x)
    return _like(X, kernels.pairwise_distances(x, y, _NAMES.get(metric, metric)))


def _matrix(x: ArrayInput, name: str) -> Float[Array, "n c"]:
    array = as_float32(np.asarray(x) if isinstance(x, list | tuple) else x, name)
    if array.ndim != 2:
        raise InvalidInputError("Expected 2D array", got=f"shape {array.shape}", where=name)
    if not isinstance(array, jax.core.Tracer) and not bool(jnp.isfinite(array).all()):
        raise InvalidInputError("Input contains no NaN or infinity, also as float32", where=name)
    return array


def _like(x: Any, *results: Any) -> Any:
    """`results` as numpy arrays unless `x` is of jax."""
    if not isinstance(x, jax.Array):
        results = tuple(np.asarray(result) for result in results)
    return results if len(results) > 1 else results[0]


class NearestNeighbors:
    """Exact neighbours by comparing with every vector.

    Args:
      n_neighbors: how many, unless a call says.
      radius: how near, unless a call says.
      metric: as in `pairwise_distances`.
    """

    def __init__(self, *, n_neighbors: int = 5, radius: float = 1.0, metric: str = "euclidean") -> None:
        self.n_neighbors = n_neighbors
        self.radius = radius
        self.metric = metric

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"n_neighbors": self.n_neighbors, "radius": self.radius, "metric": self.metric}

    def set_params(self, **params: Any) -> Self:
        """Changes arguments of the constructor."""
        for name, value in params.items():
            if name not in self.get_params():
                raise InvalidInputError(
                    f"The parameters are {', '.join(self.get_params())}", got=repr(name), where="NearestNeighbors"
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"NearestNeighbors({', '.join(f'{name}={value!r}' for name, value in self.get_params().items())})"

    def fit(self, X: ArrayInput, y: Any = None) -> Self:
        """Keeps the vectors to search, (N, C); `y` is not looked at."""
        self._fit_X = _matrix(X, "X")
        self.n_samples_fit_, self.n_features_in_ = self._fit_X.shape
        self.effective_metric_ = _NAMES.get(self.metric, self.metric)
        return self

    @overload
    def kneighbors(
        self, X: ArrayInput | None = None, n_neighbors: int | None = None, *, return_distance: Literal[False]
    ) -> Int[Array, "q k"]: ...

    @overload
    def kneighbors(
        self, X: ArrayInput | None = None, n_neighbors: int | None = None, return_distance: Literal[True] = True
    ) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]: ...

    def kneighbors(
        self, X: ArrayInput | None = None, n_neighbors: int | None = None, return_distance: bool = True
    ) -> Any:
        """The nearest vectors to each query, nearest first.

        Args:
          X: (Q, C), or None for the fitted vectors, of which none is then its own neighbour.
          n_neighbors: how many; the constructor's by default.
          return_distance: the distances too.

        Returns:
          Distances and indices, (Q, n_neighbors) each, or the indices alone.

        Raises:
          InvalidInputError: not fitted, more neighbours than vectors, or queries that do not fit.
        """
        queries = self._queries(X)
        k = self.n_neighbors if n_neighbors is None else n_neighbors
        others = self.n_samples_fit_ - (X is None)
        if not 1 <= k <= others:
            raise InvalidInputError(
                f"Expected 1 <= n_neighbors <= {others}, the vectors to choose from", got=str(k), where="kneighbors"
            )
        if X is None:
            distances, indices = self._search(queries, k + 1)
            # itself is first, but where others are as near
            own = indices == jnp.arange(len(queries))[:, None]
            own = own.at[:, -1].set(own[:, -1] | ~own.any(1))
            kept = jnp.argsort(own, axis=1, stable=True)[:, :k]
            distances, indices = (jnp.take_along_axis(found, kept, 1) for found in (distances, indices))
        else:
            distances, indices = self._search(queries, k)
        return _like(X, distances, indices) if return_distance else _like(X, indices)

    def radius_neighbors(
        self,
        X: ArrayInput | None = None,
        radius: float | None = None,
        return_distance: bool = True,
        sort_results: bool = False,
    ) -> Any:
        """The vectors within a radius of each query.

        Args:
          X: as in `kneighbors`.
          radius: the largest distance; the constructor's by default.
          return_distance: the distances too.
          sort_results: nearest first, rather than in the order of their indices.

        Returns:
          Distances and indices, or the indices alone: numpy object arrays (Q,) of arrays of different lengths.
        """
        queries = self._queries(X)
        limit = self.radius if radius is None else radius
        if sort_results and not return_distance:
            raise InvalidInputError("return_distance must be True if sort_results is", where="radius_neighbors")
        distances, indices = (np.empty(len(queries), object) for _ in range(2))
        rows = max(1, _ROWS // self.n_samples_fit_)
        for start in range(0, len(queries), rows):
            block = np.asarray(
                kernels.pairwise_distances(queries[start : start + rows], self._fit_X, self.effective_metric_)
            )
            for i, row in enumerate(block, start):
                found = np.flatnonzero(row <= limit)
                found = found[found != i] if X is None else found
                if sort_results:
                    found = found[np.argsort(row[found], kind="stable")]
                distances[i], indices[i] = row[found], found
        return (distances, indices) if return_distance else indices

    def _queries(self, X: ArrayInput | None) -> Float[Array, "q c"]:
        if not hasattr(self, "_fit_X"):
            raise InvalidInputError(
                "NearestNeighbors is fitted before it is asked", where="NearestNeighbors", fix="fit(X)"
            )
        queries = self._fit_X if X is None else _matrix(X, "X")
        if queries.shape[1] != self.n_features_in_:
            raise InvalidInputError(
                f"Queries have {self.n_features_in_} features, as when fitted", got=str(queries.shape[1]), where="X"
            )
        return queries

    def _search(self, queries: Float[Array, "q c"], k: int) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
        """In blocks of queries."""
        rows = max(1, _ROWS // self.n_samples_fit_)
        found = []
        for start in range(0, len(queries), rows):
            block = kernels.pairwise_distances(queries[start : start + rows], self._fit_X, self.effective_metric_)
            found.append(kernels.largest(-block, k))
        if not found:
            return jnp.zeros((0, k)), jnp.zeros((0, k), jnp.int32)
        return -jnp.concatenate([block for block, _ in found]), jnp.concatenate([indices for _, indices in found])
