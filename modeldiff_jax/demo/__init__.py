"""The whole story in under a minute: a teacher, what was made of it, strangers, and what a comparison says of each."""

from modeldiff_jax.demo.story import DemoResult as DemoResult
from modeldiff_jax.demo.story import Row as Row
from modeldiff_jax.demo.story import run_demo as run_demo
