"""The compilation cache: a private folder or none."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from modeldiff_jax.runtime import compilation_cache
from tests.helpers.onnx_graphs import classifier


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    for name in ("MODELDIFF_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


def test_the_folder_is_the_users_own_and_private(tmp_path):
    cache = compilation_cache.prepare()
    assert (cache.state, cache.folder) == ("on", tmp_path / "xdg" / "modeldiff")
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700


def test_relative_cache_homes_are_ignored(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert compilation_cache.folder() == Path.home() / ".cache" / "modeldiff"


def test_the_override_wins_and_an_empty_one_is_off(monkeypatch, tmp_path):
    monkeypatch.setenv("MODELDIFF_CACHE_DIR", str(tmp_path / "mine"))
    assert compilation_cache.prepare().folder == tmp_path / "mine"
    monkeypatch.setenv("MODELDIFF_CACHE_DIR", "")
    assert compilation_cache.prepare().state == "off"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_others_can_write_to_is_not_used(tmp_path, mode):
    (tmp_path / "xdg" / "modeldiff").mkdir(parents=True)
    (tmp_path / "xdg" / "modeldiff").chmod(mode)
    assert compilation_cache.prepare().state == "unusable"


def test_a_place_that_cannot_be_a_folder_is_not_used(tmp_path):
    (tmp_path / "xdg").write_text("a file")
    assert compilation_cache.prepare().state == "unusable"


def test_jaxs_own_setting_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "jax"))
    assert compilation_cache.prepare().folder == tmp_path / "jax"
    assert not (tmp_path / "xdg").exists()


def test_the_command_line_fills_it_and_help_does_not_make_it(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # a fast machine compiles this in no time
    classifier(tmp_path / "a.onnx")

    def run(*arguments):
        command = [sys.executable, "-m", "modeldiff_jax.cli", *arguments]
        return subprocess.run(command, env=os.environ, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert run("compare", "--help").returncode == 0
    assert not (tmp_path / "xdg").exists()
    for _ in range(2):
        done = run("compare", "a.onnx", "a.onnx", "--pairs", "8", "--steps", "4")
        assert (done.returncode, done.stderr) == (0, "")
    assert any((tmp_path / "xdg" / "modeldiff").iterdir())
