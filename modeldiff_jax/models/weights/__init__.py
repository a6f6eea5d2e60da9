"""Weight files: names and arrays without a graph. A model needs a module beside them."""

from modeldiff_jax.models.weights.load import load_weights as load_weights
