"""Runs the command line: `python -m modeldiff_jax.cli`."""

import sys

from modeldiff_jax.cli.entry import main

sys.exit(main())
