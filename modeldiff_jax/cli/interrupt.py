"""Ends the process soon after an interrupt (Ctrl-C).

Python delivers an interrupt between two steps of its main thread. A compilation is one step, which can take a
minute, and so is waiting for the threads of a pool; both would have to end first. An import that an interrupt breaks
off leaves numpy and jaxlib half initialised, and the process then often ends by a segmentation fault.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from modeldiff_jax.runtime.atomic_file import discard_unfinished

EXIT_CODE = 128 + signal.SIGINT
GRACE = 1.0
"""Seconds that Python has to end by itself."""


@contextmanager
def prompt_interrupt() -> Iterator[None]:
    """Ends the process with `EXIT_CODE` when it is interrupted: at the end of the block, or `GRACE` seconds later.

    Without an interrupt the block changes nothing, nor does it outside of the main thread, which handles signals, or on
    Windows, where signals interrupt no call.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    interrupted, finished = threading.Event(), threading.Event()

    def watch() -> None:
        while received := os.read(reading, 1):
            if received[0] == signal.SIGINT:
                interrupted.set()
                finished.set()
                time.sleep(GRACE)
                _end()
        finished.set()
        os.close(reading)

    threading.Thread(target=watch, name="interrupt", daemon=True).start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # others, and interrupts that a job in the background ignores, stay
        signal.signal(signal.SIGINT, _handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.set_wakeup_fd(before)
        os.close(writing)  # which ends the thread, once it has read what came before
        finished.wait(GRACE)  # a forked process may hold the pipe open
        if interrupted.is_set():
            _end()


def _handle(number: int, frame: FrameType | None) -> None:
    """Raises `KeyboardInterrupt`, or ends the process where a module is being imported."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _end()
        frame = frame.f_back
    raise KeyboardInterrupt


def _kill_children() -> None:
    import psutil  # `--help` does not wait for it

    with suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                child.kill()


def _end() -> None:
    """Ends the process and those it has started, without waiting for any thread."""
    discard_unfinished()
    with suppress(ImportError, AttributeError):  # psutil may be the module whose import was interrupted
        _kill_children()
    with suppress(OSError, ValueError):
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), b"\r\x1b[K")  # over the line of progress
    os._exit(EXIT_CODE)  # standard output is not flushed: its reader may never take what is left
