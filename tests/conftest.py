"""Fixtures of all tests: strictness, and the models that pages of the documentation speak of.

Annotations are checked at every call (see `addopts`), and nothing is promoted silently.
"""

import jax
import jaxtyping
import pytest

from tests.helpers.pages import ROOT, make_models


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
def strict_promotion(request):
    """Makes silent promotion of types and ranks an error, as strict JAX programs do."""
    if request.node.get_closest_marker("default_promotion"):
        yield
        return
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """The folder of models that pages speak of."""
    folder = tmp_path_factory.mktemp("models")
    make_models(folder)
    return folder


@pytest.fixture
def in_models(models, tmp_path, monkeypatch):
    """Makes a folder that holds these models the current one."""
    monkeypatch.setenv("MODELDIFF_CACHE_DIR", "")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # child processes start elsewhere, and run the code that is tested
    for path in models.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
