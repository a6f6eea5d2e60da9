"""What things cost and how near they come to the machine's limit, one step a file."""

from modeldiff_jax.profiling.result import Profile as Profile
from modeldiff_jax.profiling.subject import profile as profile
