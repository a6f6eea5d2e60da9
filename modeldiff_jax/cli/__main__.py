"""Runs the command line: `python -m modeldiff_jax.cli`."""

import sys

from modeldiff_jax.cli.commands import main

sys.exit(main())
