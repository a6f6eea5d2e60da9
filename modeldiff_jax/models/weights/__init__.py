"""Reads weight files: arrays by name without a graph, which need a module to become a model."""

from modeldiff_jax.models.weights.load import load_weights as load_weights
