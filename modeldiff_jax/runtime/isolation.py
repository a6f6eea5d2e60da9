"""Child processes with limits on memory, processor time and wall time, for models that may do harm.

XLA and numpy run model code that no check can bound in advance: a small file may compile for hours or ask for all
memory. In a child process that ends with an error that names the limit, and the parent goes on.
"""

from __future__ import annotations

import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

import psutil

from modeldiff_jax.errors import ChildFailedError, LimitExceededError
from modeldiff_jax.limits import Limits

_POLL = 0.05
"""Seconds between two checks of the child's use; a process writes memory at 5 GB/s at most, so 250 MB in between."""
_LENGTH = struct.Struct("<Q")


class Child:
    """A child process under limits, which responds to requests one at a time.

    Its standard input takes requests and its standard output gives responses, each as 8 bytes of length and content.

    Args:
      arguments: arguments of the Python interpreter.
      limits: `process_bytes`, `process_cpu_seconds` and `process_seconds` of them hold for each request.
      response_bytes: most bytes of one response.
    """

    def __init__(self, arguments: Sequence[str], limits: Limits, response_bytes: int) -> None:
        self._limits, self._response_bytes = limits, response_bytes
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )

    @property
    def alive(self) -> bool:
        """Returns whether the process still runs."""
        return self._process.poll() is None

    @property
    def resident_bytes(self) -> int:
        """Bytes of memory that the process holds now."""
        return _usage(psutil.Process(self._process.pid))[0]

    def request(self, content: bytes, where: str) -> bytes:
        """Sends a request and waits for the response.

        Args:
          content: content of the request.
          where: subject of the request, for messages.
        Raises:
          LimitExceededError: a limit was hit; the process has been killed.
          ChildFailedError: the process ended by itself.
        """
        watch = _Watch(self._process, self._limits, where)
        stdin, stdout = _pipes(self._process)
        with suppress(BrokenPipeError):  # reported below, with the exit status
            stdin.write(_LENGTH.pack(len(content)) + content)
            stdin.flush()
        (length,) = _LENGTH.unpack(self._read(stdout, _LENGTH.size, watch))
        if length > self._response_bytes:
            self.close()
            raise ChildFailedError(
                "A child process's response is within its limit", got=f"{length:,} bytes", where=where
            )
        return self._read(stdout, length, watch)

    def _read(self, stream: IO[bytes], size: int, watch: _Watch) -> bytes:
        parts: list[bytes] = []
        while size:
            part = watch.read(stream, min(size, 2**20))
            if not part:
                raise watch.ended()
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Ends the process."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with suppress(OSError):
                    stream.close()


def run(
    arguments: Sequence[str], limits: Limits, response_bytes: int, where: str, *, show_stderr: bool = False
) -> tuple[int, bytes]:
    """Runs a child process to its end.

    Args:
      arguments: arguments of the Python interpreter.
      limits: as for `Child`.
      response_bytes: most bytes of its standard output.
      where: subject of the run, for messages.
      show_stderr: whether its standard error goes to this process's; else it is discarded.
    Returns:
      Its exit status and its standard output.
    Raises:
      LimitExceededError: a limit was hit; the process has been killed.
      ChildFailedError: it was killed by a signal, or wrote too much.
    """
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if show_stderr else subprocess.DEVNULL,
        env=_environment(),
    )
    watch = _Watch(process, limits, where)
    assert process.stdout is not None
    output = bytearray()
    try:
        while part := watch.read(process.stdout, 2**20):
            output += part
            if len(output) > response_bytes:
                raise ChildFailedError(
                    "A child process's response is within its limit", got="too many bytes", where=where
                )
        status = watch.wait()
    finally:
        with suppress(OSError):
            process.kill()
        process.wait()
        process.stdout.close()
    if status < 0:
        raise watch.ended()
    return status, bytes(output)


class _Watch:
    """Checks a child's use of memory and time while waiting for it."""

    def __init__(self, process: subprocess.Popen[bytes], limits: Limits, where: str) -> None:
        self._process, self._limits, self._where = process, limits, where
        self._usage_of = psutil.Process(process.pid)
        self._start = time.monotonic()
        self._cpu_before = _usage(self._usage_of)[1]

    def read(self, stream: IO[bytes], most: int) -> bytes:
        """Returns what the child wrote next, nothing once it has closed the stream; kills it at a limit."""
        while not select.select([stream], [], [], _POLL)[0]:
            self._check()
        return os.read(stream.fileno(), most)

    def wait(self) -> int:
        """Waits for the end of the process; returns its exit status."""
        while self._process.poll() is None:
            self._check()
            time.sleep(_POLL / 10)
        return self._process.returncode

    def ended(self) -> ChildFailedError:
        """Returns the error for a process that ended by itself."""
        status = self._process.wait()
        if status < 0:
            with suppress(ValueError):
                return self._failed(f"it was ended by {signal.Signals(-status).name}")
        return self._failed(f"it ended with status {status}")

    def _failed(self, got: str) -> ChildFailedError:
        return ChildFailedError(
            "A model runs in a child process to its end",
            got=got,
            where=self._where,
            fix="the model, or one of the libraries that run it, ended the process; run it in child processes only",
        )

    def _check(self) -> None:
        resident, cpu = _usage(self._usage_of)
        used = {
            "process_bytes": resident,
            "process_cpu_seconds": int(cpu - self._cpu_before),
            "process_seconds": int(time.monotonic() - self._start),
        }
        try:
            for name, value in used.items():
                self._limits.check(name, value, where=self._where)
        except LimitExceededError:
            self._process.kill()
            self._process.wait()
            raise


def _environment() -> dict[str, str]:
    """Returns the child's environment: it has the parent's import path, and does not take all memory of a GPU."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": paths, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def _usage(process: psutil.Process) -> tuple[int, float]:
    """Returns the resident bytes and the processor seconds of a process; zeros once it has ended."""
    try:
        with process.oneshot():
            times = process.cpu_times()
            return process.memory_info().rss, times.user + times.system
    except psutil.Error:
        return 0, 0.0
