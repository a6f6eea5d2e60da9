"""Refuses to run JAX in a process forked off one in which JAX has run.

A fork copies the memory of a process but only the thread that forks. JAX's own threads are missing in the child, which
waits for them forever at the first compilation or the first large array.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from modeldiff_jax.errors import ForkedProcessError

_PACKAGE = __name__.partition(".")[0]
_jax_had_started = False


def check_process() -> None:
    """Raises `ForkedProcessError` in a process in which JAX would hang."""
    if _jax_had_started:
        raise ForkedProcessError(
            "JAX runs only in a process that was not forked off one in which it had run",
            got="a forked process",
            where=f"process {os.getpid()}",
            fix="start processes by multiprocessing.get_context('spawn'), or fork before the first model is loaded",
        )


def _after_fork() -> None:
    global _jax_had_started
    bridge = sys.modules.get("jax._src.xla_bridge")  # JAX has no public function for this
    started = getattr(bridge, "backends_are_initialized", None)
    if started is None or not started() or _jax_had_started:
        return
    _jax_had_started = True
    with suppress(ImportError, AttributeError):
        from jax import monitoring

        monitoring.register_event_duration_secs_listener(_refuse_compilation)


def _refuse_compilation(event: str, duration_secs: float, **_: str | int) -> None:
    """Raises between the steps of a compilation, where JAX calls it, for this package's code and not for the user's."""
    frame = sys._getframe(1)
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE:
            check_process()
        frame = frame.f_back  # type: ignore[assignment]  # None ends the loop


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
