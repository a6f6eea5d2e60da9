"""`scipy.spatial.distance` by our kernels; see `modeldiff_jax.compat.distance`."""

from modeldiff_jax.compat.distance import *  # noqa: F403
from modeldiff_jax.compat.distance import __all__ as __all__
