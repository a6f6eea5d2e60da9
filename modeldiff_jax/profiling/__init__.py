"""Profiles of kernels, models and comparisons: their costs, and how near they come to the device's limits."""

from modeldiff_jax.profiling.result import Profile as Profile
from modeldiff_jax.profiling.subject import profile as profile
