"""All tests run strictly: annotations are checked at every call (see `addopts`), and nothing is promoted silently."""

import jax
import jaxtyping
import pytest


@pytest.fixture(autouse=True)
def types_unchecked(request):
    """Honours the marker `types_unchecked`, whose argument is the cause."""
    marker = request.node.get_closest_marker("types_unchecked")
    if marker is None:
        yield
        return
    assert marker.args, "types_unchecked takes the cause"
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def strict_promotion():
    """Makes silent promotion of types and ranks an error, as strict JAX programs do."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
