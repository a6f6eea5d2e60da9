"""Standard streams: results on one, progress and messages on the other, and errors where one is closed or full."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, runtime_checkable

import click

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.report.escape import printable
from modeldiff_jax.runtime.progress import Progress, no_progress


@runtime_checkable
class Stream(Protocol):
    """A stream that says whether it is a terminal, as all of Python's do."""

    def isatty(self) -> bool: ...


def is_terminal(stream: Stream | None) -> bool:
    """Returns whether a stream is a terminal that can do more than print lines."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def takes_colour(stream: Stream | None) -> bool:
    """Returns whether a stream is a terminal whose user has not asked for plain text (`NO_COLOR`)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def width(stream: Stream | None) -> int | None:
    """Returns the columns of the terminal that a stream is; None for a file or a pipe."""
    return shutil.get_terminal_size().columns if is_terminal(stream) else None


def print_result(text: str) -> None:
    """Prints a result. A reader who leaves early, as `head` does, is no error.

    Raises:
      InvalidInputError: standard output is closed or full.
    """
    if sys.stdout is None:
        raise InvalidInputError(
            "Standard output takes the result", got="it is closed", fix="open it, or name a file with -o"
        )
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may have no letter for a name
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        discard_output()
        if error.errno != errno.EPIPE:
            raise full_output(error) from error


def full_output(error: OSError) -> InvalidInputError:
    """Returns the error for standard output that takes no more."""
    reason = error.strerror or str(error)
    return InvalidInputError("Standard output takes the result", got=reason, fix="make room, or name a file with -o")


def discard_output() -> None:
    """Discards the rest of standard output: the interpreter's last flush would fail a second time."""
    with suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_message(text: str) -> None:
    """Prints lines of a message for the user; a failure to do so is ignored: nobody would read it."""
    with suppress(OSError):
        click.echo("\n".join(map(printable, text.split("\n"))), err=True, nl=False)


@contextmanager
def shown_progress(quiet: bool) -> Iterator[Progress]:
    """Yields a function that shows each step in one line of the terminal, with a bar; elsewhere it does nothing."""
    if quiet or not is_terminal(sys.stderr):
        yield no_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(file=sys.stderr, force_terminal=True, no_color=not takes_colour(sys.stderr), force_jupyter=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.completed:.0f}/{task.total:.0f}", markup=False),
        TimeElapsedColumn(),
    )
    # the streams are left alone: a result must not pass through the bar
    with Bar(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task("", total=1)
        yield lambda step, done, total: bar.update(task, description=printable(step), completed=done, total=total)
