"""The command line as a process, as the script `modeldiff` and `python -m modeldiff_jax.cli` run it."""

from __future__ import annotations

from collections.abc import Sequence

from modeldiff_jax.cli import commands
from modeldiff_jax.cli.interrupt import prompt_interrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code, as `commands.main` does.

    Args:
      arguments: None for those of the process, which then ends when it is interrupted.
    """
    if arguments is not None:
        return commands.main(arguments)
    with prompt_interrupt():
        return commands.main()
