"""Annotations are checked at every call of the package (see `addopts`), except where a test breaks them on purpose."""

import jaxtyping
import pytest


@pytest.fixture(autouse=True)
def types_unchecked_where_marked(request):
    if request.node.get_closest_marker("wrong_types") is None:
        yield
        return
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
