"""A result file is whole or untouched."""

import os
import stat
import subprocess
import sys
import threading

import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.runtime import atomic_file as module
from modeldiff_jax.runtime.atomic_file import check_writable, discard_unfinished, write, writing


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
    mask = os.umask(0o027)  # noqa: TID251  # under test, and put back below
    try:
        write(str(tmp_path / "new"), "x")
    finally:
        os.umask(mask)  # noqa: TID251
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


def test_new_files_follow_the_umask_without_changing_it(tmp_path, monkeypatch):
    """It belongs to the whole process: another thread could make a file meanwhile."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("changed"))
    write(tmp_path / "new", "x")
    (tmp_path / "usual").write_text("x")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_beside_it(tmp_path, error):
    def interrupted():
        with writing(tmp_path / "out") as stream:
            stream.write(b"half")
            raise error

    (tmp_path / "out").write_text("old")
    with pytest.raises(error):
        interrupted()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("out", "old")]


def test_a_process_that_ends_in_the_middle_can_clean_up(tmp_path):
    with writing(tmp_path / "out") as stream:
        stream.write(b"half")
        assert len(list(tmp_path.iterdir())) == 1
        discard_unfinished()
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "elsewhere").write_bytes(b"")
        os.replace(tmp_path / "elsewhere", next(iter(module._unfinished)))  # so that the block can be left
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


FULL_DISK = """
import resource, signal, sys
import numpy as np
from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.runtime.atomic_file import write, writing
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
try:
    if sys.argv[3] == "text":
        write(sys.argv[1], "x" * 10**6)
    else:
        with writing(sys.argv[1], "A probe set") as stream:
            np.savez(stream, a=np.zeros(10**5), b=np.zeros(10))
except InvalidInputError as error:
    sys.exit(0 if error.got == "File too large" and error.where == sys.argv[1] else f"{error}")
sys.exit("written")
"""


@pytest.mark.parametrize("kind", ["text", "arrays"])
@pytest.mark.parametrize("space", [100, 800_300])
def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path, kind, space):
    (tmp_path / "out").write_text("old")
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "out"), str(space), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("out", "old")]


def test_a_full_device_is_an_error():
    with pytest.raises(InvalidInputError, match="No space left"):
        write("/dev/full", "x")


@pytest.mark.parametrize("name", ["missing/out", "a folder"])
def test_places_that_cannot_be_written_are_errors(tmp_path, name):
    (tmp_path / "a folder").mkdir()
    with pytest.raises(InvalidInputError, match="can be written") as caught:
        write(tmp_path / name, "x")
    assert caught.value.where == str(tmp_path / name)
