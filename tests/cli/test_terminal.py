"""Standard streams: terminals, pipes, full disks and closed ones."""

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from modeldiff_jax import cli
from modeldiff_jax.detection import compare as comparison

QUICK = ["--pairs", "12", "--steps", "3"]
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COMMAND = [sys.executable, "-m", "modeldiff_jax.cli"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("terminal", "no_color", "arguments", "coloured"),
    [
        (True, "", [], True),
        (True, "1", [], False),
        (False, "", [], False),
        (True, "", ["--format", "md"], False),
        (True, "", ["--format", "json"], False),
    ],
)
def test_colour_is_for_terminals_and_no_color_is_honoured(
    stub, monkeypatch, capsys, terminal, no_color, arguments, coloured
):
    out = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    assert cli.main(["compare", "a", "b", *arguments]) == 0
    assert ("\x1b[" in out.getvalue()) == coloured


@pytest.mark.parametrize(
    ("terminal", "arguments", "shown"), [(True, [], True), (True, ["--quiet"], False), (False, [], False)]
)
def test_progress_is_for_terminals_and_not_when_quiet(stub, monkeypatch, capsys, terminal, arguments, shown):
    def compare(*_, progress, **__):
        progress("Making\x1b[2J partners", 1, 6)
        return stub.result()

    err = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(comparison, "compare", compare)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    assert cli.main(["compare", "a", "b", *arguments]) == 0
    assert ("Making\\x1b[2J partners" in err.getvalue()) == shown
    assert ("1/6" in ANSI.sub("", err.getvalue())) == shown
    assert "\x1b[2J" not in err.getvalue()
    assert ("\x1b[2K" in err.getvalue()) == shown  # the line is cleared behind it


def test_a_reader_that_leaves_early_is_no_error(files):
    master, slave = os.pipe()
    os.close(master)
    done = subprocess.run(
        [sys.executable, "-m", "modeldiff_jax.cli", "doctor"],
        stdout=slave,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(slave)
    assert (done.returncode, done.stderr) == (0, "")


def test_on_a_real_terminal_results_and_progress_are_shown(files):
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "modeldiff_jax.cli", "compare", "a.onnx", "b.onnx", *QUICK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, env=environment) as process:
        os.close(slave)
        shown = b""
        while chunk := read(master):
            shown += chunk
        result = process.stdout.read().decode()
    os.close(master)
    assert process.returncode == 0, shown
    assert b"Reading the models" in shown
    assert result.startswith("modeldiff compare: inconclusive")
    assert "Reading the models" not in result


def read(descriptor):
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the other end is closed
        return b""


def through_shell(line):
    """A command line as a shell runs it: standard output, standard error, exit code."""
    done = subprocess.run(["bash", "-c", f"{' '.join(COMMAND)} {line}"], capture_output=True, text=True, check=False)
    return done.stdout, done.stderr, done.returncode


full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


@full_disk
@pytest.mark.parametrize("arguments", ["doctor --format json", "--help", "--version"])
def test_a_full_disk_is_said_once(arguments):
    _, err, code = through_shell(f"{arguments} > /dev/full")
    assert code == 2
    assert err.startswith("Error: Standard output takes the result.")
    assert "No space left" in err
    assert "Traceback" not in err
    assert err.count("Error") == 1


def test_a_closed_standard_output_is_said():
    _, err, code = through_shell("doctor >&-")
    assert code == 2
    assert err.startswith("Error: Standard output takes the result.")
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", ["doctor", "--help"])
def test_a_closed_standard_error_is_no_matter(arguments):
    out, _, code = through_shell(f"{arguments} 2>&-")
    assert code == 0
    assert "modeldiff" in out


@full_disk
def test_a_message_that_nobody_can_read_changes_no_exit_code():
    assert through_shell("convert none.onnx 2> /dev/full")[2] == 2
