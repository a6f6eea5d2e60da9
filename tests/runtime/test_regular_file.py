"""Files named by users: regular ones only, never waited for, and none that changes while it is read."""

import os
import socket
from pathlib import Path

import pytest

from modeldiff_jax.errors import InvalidInputError, InvalidModelError
from modeldiff_jax.runtime.regular_file import open_regular


def folder(path):
    path.mkdir()


def named_pipe(path):
    os.mkfifo(path)


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))


def device(path):
    path.symlink_to("/dev/zero")


def nothing(path):
    pass


def link_to_itself(path):
    path.symlink_to(path.name)


KINDS = {
    "a folder": folder,
    "a named pipe": named_pipe,
    "a socket": unix_socket,
    "a character device": device,
    "no such file": nothing,
    "symbolic links": link_to_itself,
}


@pytest.mark.parametrize(("kind", "make"), KINDS.items(), ids=KINDS)
def test_other_kinds_are_refused_by_name(tmp_path, monkeypatch, kind, make):
    monkeypatch.chdir(tmp_path)  # a socket's path may not be long
    make(Path("x"))
    with pytest.raises(InvalidModelError, match=kind) as caught, open_regular("x", "A model", InvalidModelError):
        pytest.fail("opened")
    assert caught.value.where == "x"
    assert caught.value.rule.startswith("A model ")
    assert caught.value.fix


@pytest.mark.parametrize("path", ["", "a\0b", "n" * 5000])
def test_impossible_paths_are_refused(path):
    with pytest.raises(InvalidInputError), open_regular(path):
        pytest.fail("opened")


def test_links_are_followed(tmp_path):
    (tmp_path / "real").write_bytes(b"content")
    (tmp_path / "link").symlink_to("real")
    with open_regular(tmp_path / "link") as stream:
        assert stream.read() == b"content"


def append(path):
    with path.open("ab") as stream:
        stream.write(b"more")


def cut(path):
    os.truncate(path, 3)


def rewrite(path):
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(0, 0))  # clocks of file systems are coarse


@pytest.mark.parametrize("change", [append, cut, rewrite])
@pytest.mark.parametrize("error", [None, ValueError("damaged"), OSError("cannot be read")], ids=str)
def test_a_change_while_the_file_is_read_is_the_error(tmp_path, change, error):
    path = tmp_path / "x"
    path.write_bytes(b"content")

    def read():
        with open_regular(path) as stream:
            stream.read(1)
            change(path)
            if error:
                raise error

    with pytest.raises(InvalidInputError, match="must not change"):
        read()


def test_errors_of_the_block_come_out_as_they_are(tmp_path):
    (tmp_path / "x").write_bytes(b"content")
    with pytest.raises(KeyError), open_regular(tmp_path / "x"):
        raise KeyError
    with pytest.raises(InvalidInputError, match="Input/output error"), open_regular(tmp_path / "x"):
        raise OSError(5, "Input/output error")


def test_a_file_that_is_replaced_is_read_as_it_was(tmp_path):
    """Writers that rename a whole file into place do not disturb readers."""
    (tmp_path / "x").write_bytes(b"content")
    (tmp_path / "new").write_bytes(b"another")
    with open_regular(tmp_path / "x") as stream:
        os.replace(tmp_path / "new", tmp_path / "x")
        assert stream.read() == b"content"
