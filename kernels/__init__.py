"""The numerical operations below everything else. They import jax and numpy only.

Each file holds one operation, in one order: what to know of it (types, stability, rules, bounds), the
public function, `reference` (the definition), `xla` (compiled for any device), where there are such `pallas_gpu` and
`pallas_tpu`, and `VARIANTS`, the names to ask for.

  bin_maxima/         the first look of a search: the largest score of each bin, fused on GPUs and TPUs
  convolution.py      convolution and its transpose, dense or grouped
  correlation.py      Pearson's and Spearman's, of all vectors of two matrices
  cosine.py           cosine similarity of all vectors of two matrices
  depthwise_conv.py   convolution with filters for each channel alone
  integer_products.py matrix products and convolutions of 8-bit integers, exact
  paired.py           distances between two arrays of vectors, pair by pair, in nine metrics
  pairwise.py         the same distances between all vectors of two arrays
  pooling.py          maxima, means and p-norms over windows
  prepared.py         a database made ready for search
  ragged.py           those of many models whose vectors differ in length
  rdm.py              how alike two dissimilarity matrices are
  resize.py           axes resampled: nearest, linear and cubic
  search.py           the nearest rows of a database, exactly
  selection.py        the k largest scores of each row, exactly
  self_join.py        near pairs within one set of vectors
  sharded.py          search and self-join over the devices of a mesh
  dispatch.py         which variant serves a call
  inputs.py           what a distance accepts, and scaling without rounding
  rounding.py         roundings that XLA would leave out, and saturation
  pallas.py           Pallas where it is there
  tuned/              sizes of blocks by device

Import these as `modeldiff_jax.kernels`, never as `kernels`, which would make a second copy of each module.
"""

from modeldiff_jax.kernels.correlation import pearson_similarity as pearson_similarity
from modeldiff_jax.kernels.correlation import spearman_similarity as spearman_similarity
from modeldiff_jax.kernels.cosine import cosine_similarity as cosine_similarity
from modeldiff_jax.kernels.paired import paired_distances as paired_distances
from modeldiff_jax.kernels.pairwise import pairwise_distances as pairwise_distances
from modeldiff_jax.kernels.prepared import prepare as prepare
from modeldiff_jax.kernels.ragged import ragged_distances as ragged_distances
from modeldiff_jax.kernels.rdm import rdm_similarity as rdm_similarity
from modeldiff_jax.kernels.search import top_k as top_k
from modeldiff_jax.kernels.selection import largest as largest
from modeldiff_jax.kernels.self_join import self_join as self_join
from modeldiff_jax.kernels.sharded import sharded_self_join as sharded_self_join
from modeldiff_jax.kernels.sharded import sharded_top_k as sharded_top_k
