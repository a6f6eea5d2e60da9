"""The whole story in a minute: a teacher, copies of it, unrelated networks, and what a comparison says of each."""

from modeldiff_jax.demo.story import DemoResult as DemoResult
from modeldiff_jax.demo.story import Row as Row
from modeldiff_jax.demo.story import run_demo as run_demo
