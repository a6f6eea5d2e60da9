"""The command line."""

from modeldiff_jax.cli.commands import main as main
