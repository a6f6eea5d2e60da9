"""scikit-learn's `pairwise_distances` and `NearestNeighbors(algorithm="brute")` on this package's kernels, in float32.

The estimator has scikit-learn's parameters, conventions and types of errors, and passes its `check_estimator`. Anything
array-like goes in; numpy arrays come out, or jax arrays where the queries are jax arrays. Neighbours at equal distances
come in the order of their indices, which scikit-learn leaves open.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_array

from modeldiff_jax import kernels
from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.inputs import as_float32
from modeldiff_jax.kernels.paired import METRICS
from modeldiff_jax.kernels.prepared import prepare
from modeldiff_jax.kernels.self_join import nearest_others
from modeldiff_jax.kernels.top_k import nearest

__all__ = ["NearestNeighbors", "pairwise_distances"]

_NAMES = {"l1": "cityblock", "manhattan": "cityblock", "l2": "euclidean"}
_METRIC_OF_EXPONENT = {1: "cityblock", 2: "euclidean", float("inf"): "chebyshev"}
_DISTANCES_AT_ONCE = 2**24


def pairwise_distances(X: Any, Y: Any = None, metric: str = "euclidean") -> Any:
    """Returns the distances between all rows of `X` and all rows of `Y`, or of `X` itself.

    Args:
      X: (N, C), finite.
      Y: (K, C), finite, or None.
      metric: a metric of our kernels, one of scikit-learn's names for it, or "precomputed": `X` is then returned, if it
        can be a matrix of distances.

    Returns:
      (N, K), float32: a jax array if `X` is one, else numpy.

    Raises:
      InvalidInputError: not finite, shapes do not fit, or an unknown metric.
    """
    x, y = _matrix(X, "X"), None if Y is None else _matrix(Y, "Y")
    if metric == "precomputed":
        if x.shape[1] != (x if y is None else y).shape[0]:
            raise InvalidInputError("A precomputed matrix is (queries, indexed)", got=f"shape {x.shape}", where="X")
        return _of_type(X, x)
    return _of_type(X, kernels.pairwise_distances(x, y, _NAMES.get(metric, metric)))


class _NotFittedError(InvalidInputError, NotFittedError):
    """A method was called before `fit`."""


class _WrongTypeError(InvalidInputError, TypeError):
    """An argument is of a type for which scikit-learn raises TypeError."""


def _matrix(x: Any, name: str) -> Float[Array, "n c"]:
    """Converts vectors to a finite float32 matrix; numpy arrays, data frames and lists by scikit-learn's checks."""
    if isinstance(x, np.ndarray) or not hasattr(x, "__dlpack__"):
        try:
            x = check_array(x, estimator="NearestNeighbors", input_name=name)
        except (TypeError, ValueError) as cause:
            kind = _WrongTypeError if isinstance(cause, TypeError) else InvalidInputError
            raise kind(str(cause).strip().rstrip(".:"), where=name) from cause
    array = as_float32(x, name)
    if array.ndim != 2:
        raise InvalidInputError("Expected 2D array", got=f"shape {array.shape}", where=name)
    if not isinstance(array, jax.core.Tracer) and not bool(_is_finite(array)):
        raise InvalidInputError("Input contains no NaN or infinity, also as float32", where=name)
    return array


@jax.jit
def _is_finite(x: Array) -> Array:
    return jnp.isfinite(x).all()


def _of_type(x: Any, *results: Any) -> Any:
    """Converts results to numpy arrays unless `x` is a jax array."""
    if not isinstance(x, jax.Array):
        results = tuple(np.asarray(result) for result in results)
    return results if len(results) > 1 else results[0]


class NearestNeighbors(BaseEstimator):
    """Exact nearest neighbours, by comparing with every vector.

    It takes scikit-learn's parameters except `leaf_size`, which only its trees have.

    Args:
      n_neighbors: number of neighbours, unless a call gives one.
      radius: largest distance of `radius_neighbors`, unless a call gives one.
      algorithm: "brute" or "auto", which are the same here. The trees of scikit-learn find the same neighbours.
      metric: as in `pairwise_distances`, other than "precomputed"; or "minkowski", with `p`.
      p: exponent of "minkowski": 1, 2 or infinity.
      metric_params: None or empty; our metrics have no parameters.
      n_jobs: has no effect. XLA uses all cores it may use.

    Attributes:
      effective_metric_: name of the metric in `modeldiff_jax.kernels`.
      n_samples_fit_: number of fitted vectors.
      n_features_in_: number of entries of a vector.
    """

    def __init__(
        self,
        *,
        n_neighbors: int = 5,
        radius: float = 1.0,
        algorithm: str = "auto",
        metric: str = "minkowski",
        p: float = 2,
        metric_params: dict[str, Any] | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.radius = radius
        self.algorithm = algorithm
        self.metric = metric
        self.p = p
        self.metric_params = metric_params
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any = None) -> NearestNeighbors:
        """Prepares the vectors to search.

        Args:
          X: (N, C), finite.
          y: ignored.

        Raises:
          InvalidInputError: `X` is not a finite matrix, or a parameter is out of range.
        """
        if self.algorithm not in ("auto", "brute"):
            raise InvalidInputError(
                "`algorithm` is 'auto' or 'brute'",
                got=repr(self.algorithm),
                where="NearestNeighbors",
                fix="leave it out: trees find the same neighbours",
            )
        if self.metric_params:
            raise InvalidInputError(
                "`metric_params` is None or empty", got=repr(self.metric_params), where="NearestNeighbors"
            )
        self.effective_metric_ = self._kernel_metric()
        self._prepared = prepare(_matrix(X, "X"), self.effective_metric_)
        self.n_samples_fit_, self.n_features_in_ = self._prepared.rows.shape
        return self

    def _kernel_metric(self) -> str:
        if self.metric == "minkowski":
            if self.p not in _METRIC_OF_EXPONENT:
                raise InvalidInputError("`p` is 1, 2 or infinity", got=repr(self.p), where="NearestNeighbors")
            return _METRIC_OF_EXPONENT[self.p]
        name = _NAMES.get(self.metric, self.metric)
        if name not in METRICS:
            names = ", ".join((*METRICS, *_NAMES, "minkowski"))
            raise InvalidInputError(f"`metric` is one of {names}", got=repr(self.metric), where="NearestNeighbors")
        return name

    @overload
    def kneighbors(
        self, X: Any = None, n_neighbors: int | None = None, *, return_distance: Literal[False]
    ) -> Int[Array, "q k"]: ...

    @overload
    def kneighbors(
        self, X: Any = None, n_neighbors: int | None = None, return_distance: Literal[True] = True
    ) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]: ...

    def kneighbors(self, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True) -> Any:
        """Returns the nearest vectors to each query, nearest first.

        Args:
          X: (Q, C), or None for the fitted vectors, none of which is then its own neighbour.
          n_neighbors: number of neighbours; that of the constructor by default.
          return_distance: whether to return distances too.

        Returns:
          Distances (Q, n_neighbors), float32, and indices (Q, n_neighbors), int32; or the indices alone.

        Raises:
          InvalidInputError: not fitted, more neighbours than vectors, or queries that do not fit.
        """
        queries = self._queries(X)
        k = self.n_neighbors if n_neighbors is None else n_neighbors
        available = self.n_samples_fit_ - (X is None)
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= available:
            raise InvalidInputError(
                f"Expected 1 <= n_neighbors <= {available}, the vectors to choose from", got=repr(k), where="kneighbors"
            )
        if X is None:
            distances, indices = nearest_others(self._prepared, int(k))
        else:
            distances, indices = nearest(queries, self._prepared, int(k))
        return _of_type(X, distances, indices) if return_distance else _of_type(X, indices)

    def kneighbors_graph(self, X: Any = None, n_neighbors: int | None = None, mode: str = "connectivity") -> csr_matrix:
        """Returns the neighbours of each query as a sparse matrix.

        Args:
          X: as in `kneighbors`.
          n_neighbors: as in `kneighbors`.
          mode: "connectivity" for ones, "distance" for the distances.

        Returns:
          (Q, N) in CSR format, with `n_neighbors` entries per row.
        """
        _check_mode(mode)
        distances, indices = (np.asarray(x) for x in self.kneighbors(X, n_neighbors))
        values = distances.ravel() if mode == "distance" else np.ones(distances.size)
        starts = np.arange(0, indices.size + 1, indices.shape[1])
        return csr_matrix((values, indices.ravel(), starts), shape=(len(indices), self.n_samples_fit_))

    def radius_neighbors(
        self,
        X: Any = None,
        radius: float | None = None,
        return_distance: bool = True,
        sort_results: bool = False,
    ) -> Any:
        """Returns the vectors within a radius of each query.

        Args:
          X: as in `kneighbors`.
          radius: largest distance; that of the constructor by default.
          return_distance: whether to return distances too.
          sort_results: whether to sort by distance, rather than by index.

        Returns:
          Distances and indices, or the indices alone: numpy object arrays (Q,) of arrays of different lengths.

        Raises:
          InvalidInputError: not fitted, queries that do not fit, or `sort_results` without distances.
        """
        queries = self._queries(X)
        largest = self.radius if radius is None else radius
        if sort_results and not return_distance:
            raise InvalidInputError("return_distance must be True if sort_results is", where="radius_neighbors")
        number = queries.shape[0]
        distances, indices = (np.empty(number, object) for _ in range(2))
        at_once = max(1, _DISTANCES_AT_ONCE // self.n_samples_fit_)
        for start in range(0, number, at_once):
            block = jax.lax.slice_in_dim(queries, start, min(number, start + at_once))
            rows = np.asarray(kernels.pairwise_distances(block, self._prepared.rows, self.effective_metric_))
            for i, row in enumerate(rows, start):
                near = np.flatnonzero(row <= largest)
                near = near[near != i] if X is None else near
                if sort_results:
                    near = near[np.argsort(row[near], kind="stable")]
                distances[i], indices[i] = row[near], near
        return (distances, indices) if return_distance else indices

    def radius_neighbors_graph(
        self, X: Any = None, radius: float | None = None, mode: str = "connectivity", sort_results: bool = False
    ) -> csr_matrix:
        """Returns the vectors within a radius of each query as a sparse matrix.

        Args:
          X: as in `kneighbors`.
          radius: as in `radius_neighbors`.
          mode: "connectivity" for ones, "distance" for the distances.
          sort_results: as in `radius_neighbors`.

        Returns:
          (Q, N) in CSR format.
        """
        _check_mode(mode)
        distances, indices = self.radius_neighbors(X, radius, sort_results=sort_results)
        values = np.concatenate([*distances, np.zeros(0, np.float32)])
        starts = np.cumsum([0, *(len(row) for row in indices)], dtype=np.int64)
        columns = np.concatenate([*indices, np.zeros(0, np.int64)])
        if mode == "connectivity":
            values = np.ones(len(columns))
        return csr_matrix((values, columns, starts), shape=(len(indices), self.n_samples_fit_))

    def _queries(self, X: Any) -> Float[Array, "q c"]:
        if not hasattr(self, "_prepared"):
            raise _NotFittedError(
                "NearestNeighbors is fitted before it is used", where="NearestNeighbors", fix="fit(X)"
            )
        queries = self._prepared.rows if X is None else _matrix(X, "X")
        if queries.shape[1] != self.n_features_in_:
            raise InvalidInputError(
                f"X has {queries.shape[1]} features, but NearestNeighbors is expecting {self.n_features_in_} features "
                "as input",
                where="X",
            )
        return queries


def _check_mode(mode: str) -> None:
    if mode not in ("connectivity", "distance"):
        raise InvalidInputError("`mode` is 'connectivity' or 'distance'", got=repr(mode))
