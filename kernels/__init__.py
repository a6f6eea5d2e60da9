"""Numerical operations below everything else. They import jax, numpy and the package's errors only.

Each file or folder holds one operation, always in this order: a preface (types, stability, rules, bounds), the public
function, `reference` (the definition), `xla` (compiled for any device), `pallas_gpu` and `pallas_tpu` where they exist,
and `VARIANTS`, the table of names for `implementation`.

  bin_maxima/          largest score of each bin of a database, fused on GPUs and TPUs: the first pass of a search
  convolution.py       convolution and its transpose, dense or grouped
  correlation.py       Pearson's and Spearman's correlation between all vectors of two matrices
  cosine.py            cosine similarity between all vectors of two matrices
  depthwise_conv.py    convolution with filters for each channel alone
  integer_products.py  matrix products and convolutions of 8-bit integers, exact
  largest.py           the k largest scores of each row, exactly
  paired/              distances between two arrays of vectors, pair by pair, in nine metrics
  pairwise.py          the same distances between all vectors of two arrays
  pooling.py           maxima, means and p-norms over windows
  ragged.py            pairwise distances of many models whose vectors differ in length
  rdm.py               similarity of two dissimilarity matrices
  resize.py            axes resampled: nearest, linear and cubic
  self_join.py         near pairs within one set of vectors
  sharded.py           search and self-join over the devices of a mesh
  top_k/               the nearest rows of a database, exactly

These serve them:

  buckets.py           sizes that shapes are rounded up to, to compile fewer programs
  dispatch.py          selection of the variant that serves a call
  inputs.py            conversion of array arguments
  pallas.py            access to Pallas where it exists
  prepared.py          databases prepared for repeated search
  rounding.py          roundings that XLA would leave out, and saturation
  tuned/               block sizes by device
  vectors.py           scaling, centring and normalising vectors

Import these as `modeldiff_jax.kernels`, never as `kernels`, which would make a second copy of each module.
"""

from modeldiff_jax.kernels.correlation import pearson_similarity as pearson_similarity
from modeldiff_jax.kernels.correlation import spearman_similarity as spearman_similarity
from modeldiff_jax.kernels.cosine import cosine_similarity as cosine_similarity
from modeldiff_jax.kernels.largest import largest as largest
from modeldiff_jax.kernels.paired import paired_distances as paired_distances
from modeldiff_jax.kernels.pairwise import pairwise_distances as pairwise_distances
from modeldiff_jax.kernels.prepared import prepare as prepare
from modeldiff_jax.kernels.ragged import ragged_distances as ragged_distances
from modeldiff_jax.kernels.rdm import rdm_similarity as rdm_similarity
from modeldiff_jax.kernels.self_join import self_join as self_join
from modeldiff_jax.kernels.sharded import sharded_self_join as sharded_self_join
from modeldiff_jax.kernels.sharded import sharded_top_k as sharded_top_k
from modeldiff_jax.kernels.top_k import top_k as top_k
