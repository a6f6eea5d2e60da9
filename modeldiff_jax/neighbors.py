"""scikit-learn's `pairwise_distances` and `NearestNeighbors` by our kernels; see `modeldiff_jax.compat.neighbors`."""

from modeldiff_jax.compat.neighbors import *  # noqa: F403
from modeldiff_jax.compat.neighbors import __all__ as __all__
