"""Views of one pair of models, one file each. A score is higher the more related the two models behave."""

from modeldiff_jax.evidence.ddv import ddv_similarity as ddv_similarity
