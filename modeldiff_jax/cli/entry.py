"""The command line as a process of its own, as the script `modeldiff` and `python -m modeldiff_jax.cli` run it."""

from __future__ import annotations

from collections.abc import Sequence

from modeldiff_jax.cli import commands
from modeldiff_jax.cli.interrupt import prompt_interrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code, as `commands.main` does.

    Args:
      arguments: those of the process if None; the process is then the command's to end when it is interrupted.
    """
    if arguments is not None:
        return commands.main(arguments)
    with prompt_interrupt():
        return commands.main()
