"""Demonstration in a minute: a teacher, models derived from it, unrelated networks, and a comparison with each."""

from modeldiff_jax.demo.story import DemoResult as DemoResult
from modeldiff_jax.demo.story import Row as Row
from modeldiff_jax.demo.story import run_demo as run_demo
