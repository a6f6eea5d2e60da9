"""Fixtures for the tests of the documentation."""

import pytest

from tests.helpers.pages import ROOT, make_models


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
