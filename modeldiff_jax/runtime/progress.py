"""Reports progress of long work by a callback before each step, and measures the wall time of steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]
"""`progress(step, done, total)`, called before each step."""


def no_progress(step: str, done: int, total: int) -> None:
    """Ignores progress."""


class StepClock:
    """Measures the wall time of named steps, and reports each step as it starts.

    Args:
      progress: called with each step, or None.
      steps: number of steps in all.
    """

    def __init__(self, progress: Progress | None, steps: int) -> None:
        self._progress, self._steps, self._done = progress or no_progress, steps, 0
        self._start = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str, message: str) -> Iterator[None]:
        """Times the block under `name`."""
        self._progress(message, self._done, self._steps)
        start = time.perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start
        self._done += 1

    def finish(self) -> dict[str, float]:
        """Reports the end; returns seconds by step name, and `total`."""
        self._progress("Done", self._steps, self._steps)
        return {**self._seconds, "total": time.perf_counter() - self._start}
