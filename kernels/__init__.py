"""The numerical operations below everything else. They import jax and numpy only.

Each file holds one operation, in one order: what to know of it (types, stability, zero and NaN rules, bounds), the
public function, `reference` (the definition), `xla` (compiled for any device), and `VARIANTS`, the names to ask for.

  cosine.py     cosine similarity of all vectors of two matrices
  paired.py     distances between two arrays of vectors, pair by pair, in nine metrics
  dispatch.py   which variant serves a call
  inputs.py     what an operation accepts, and scaling without rounding

Import these as `modeldiff_jax.kernels`, never as `kernels`, which would make a second copy of each module.
"""

from modeldiff_jax.kernels.cosine import cosine_similarity as cosine_similarity
from modeldiff_jax.kernels.paired import paired_distances as paired_distances
