"""A result file is whole or untouched."""

import os
import stat
import threading

import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.runtime import atomic_file as module
from modeldiff_jax.runtime.atomic_file import check_writable, write


def test_a_file_is_written_whole_and_leaves_nothing_beside_it(tmp_path):
    write(str(tmp_path / "out.json"), "naïve\n")
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
    assert (tmp_path / "out.json").read_text("utf-8") == "naïve\n"


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    file = tmp_path / "out.json"
    file.write_text("old")
    monkeypatch.setattr(module.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InvalidInputError, match="No space left"):
        write(str(file), "new")
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]


def test_permissions_of_an_old_file_are_kept_and_new_ones_follow_the_umask(tmp_path):
    old = tmp_path / "old"
    old.write_text("")
    old.chmod(0o640)
    write(str(old), "x")
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    mask = os.umask(0o027)
    try:
        write(str(tmp_path / "new"), "x")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write(str(tmp_path / "link"), "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write(str(pipe), "through")
    reader.join(timeout=10)
    assert got == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["", "missing/out.json", "input.onnx", "link.onnx"])
def test_places_that_cannot_be_meant_are_refused_before_any_work(tmp_path, name):
    model = tmp_path / "input.onnx"
    model.write_text("model")
    (tmp_path / "link.onnx").symlink_to(model)
    with pytest.raises(InvalidInputError):
        check_writable(str(tmp_path / name), [str(model), "photographs"])
    check_writable(str(tmp_path / "fine.json"), [str(model)])
