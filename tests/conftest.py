"""Annotations are checked at every call of the package (see `addopts`), except where a test breaks them on purpose."""

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
