"""The compilation cache: a private folder or none."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from modeldiff_jax.runtime import compilation_cache
from modeldiff_jax.runtime.compilation_cache import CheckedEntries
from tests.helpers.onnx_graphs import classifier


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    for name in ("MODELDIFF_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


def test_the_folder_belongs_to_the_user_and_is_private(tmp_path):
    cache = compilation_cache.prepare()
    assert (cache.state, cache.folder) == ("on", tmp_path / "xdg" / "modeldiff")
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700


def test_relative_cache_homes_are_ignored(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert compilation_cache.folder() == Path.home() / ".cache" / "modeldiff"


def test_the_override_wins_and_an_empty_one_is_off(monkeypatch, tmp_path):
    monkeypatch.setenv("MODELDIFF_CACHE_DIR", str(tmp_path / "chosen"))
    assert compilation_cache.prepare().folder == tmp_path / "chosen"
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


def test_jaxs_setting_is_left_alone(monkeypatch, tmp_path):
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

    def compared():
        done = run("compare", "a.onnx", "a.onnx", "--pairs", "8", "--steps", "4", "--format", "json")
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)["similarity"]

    similarity = compared()
    entries = sorted((tmp_path / "xdg" / "modeldiff").iterdir())
    contents = [entry.read_bytes() for entry in entries]
    assert len(entries) > 3
    # each under the next one's name, but for three that are damaged
    for entry, content in zip(entries, contents[1:] + contents[:1], strict=True):
        entry.write_bytes(content)
    entries[0].write_bytes(b"")
    entries[1].write_bytes(contents[1][:-1])
    entries[2].write_bytes(bytes([*contents[2][:-1], contents[2][-1] ^ 1]))
    assert compared() == similarity
    assert sorted((tmp_path / "xdg" / "modeldiff").iterdir()) == entries
    repaired = [entry.stat().st_ino for entry in entries]
    assert compared() == similarity
    assert [entry.stat().st_ino for entry in entries] == repaired  # nothing was compiled again


@pytest.fixture
def entries(tmp_path):
    return CheckedEntries(tmp_path)


def test_an_entry_is_what_was_put(entries):
    assert entries.get("program") is None
    entries.put("program", b"compiled")
    entries.put("empty", b"")
    assert entries.get("program") == b"compiled"
    assert entries.get("empty") == b""


def damaged(file, other):
    file.write_bytes(file.read_bytes()[:-1])


def emptied(file, other):
    file.write_bytes(b"")


def swapped(file, other):
    file.write_bytes(other.read_bytes())


def of_jax(file, other):
    file.write_bytes(b"as JAX itself writes them")


def a_pipe(file, other):
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("change", [damaged, emptied, swapped, of_jax, a_pipe])
def test_another_entry_is_removed_and_can_be_put_again(entries, tmp_path, change):
    for key in ("one", "other"):
        entries.put(key, key.encode())
    file, other = (entries._file(key) for key in ("one", "other"))
    change(file, other)
    assert entries.get("one") is None
    assert not file.exists()
    assert entries.get("other") == b"other"
    entries.put("one", b"again")
    assert entries.get("one") == b"again"


def test_an_entry_that_cannot_be_written_is_left_out(tmp_path):
    entries = CheckedEntries(tmp_path / "gone")
    entries.put("one", b"compiled")
    assert entries.get("one") is None


def test_this_jax_takes_its_entries_from_there(tmp_path, monkeypatch):
    from jax._src import compilation_cache as inside_jax

    monkeypatch.setattr(inside_jax, "_cache", None)
    compilation_cache._check_entries(tmp_path)
    assert isinstance(inside_jax._get_cache(jax.devices()[0].client), CheckedEntries)
