"""The command line: arguments in, a record out."""

from modeldiff_jax.cli.commands import cli as cli
from modeldiff_jax.cli.entry import main as main
