"""Settings that programs switch on, under which every public kernel returns what it does without them."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modeldiff_jax import kernels

from .neighbours import iid

X, Y = iid(40, 7), iid(9, 7, seed=1)
CALLS = {
    "cosine_similarity": lambda x, y: kernels.cosine_similarity(x, y),
    "largest": lambda x, y: kernels.largest(x, 3),
    "paired_distances": lambda x, y: kernels.paired_distances(x, x),
    "pairwise_distances": lambda x, y: kernels.pairwise_distances(x, y),
    "pairwise_distances, condensed": lambda x, y: kernels.pairwise_distances(x, None, "cityblock", condensed=True),
    "pearson_similarity": lambda x, y: kernels.pearson_similarity(x),
    "prepare": lambda x, y: kernels.prepare(x, "euclidean", "int8"),
    "ragged_distances": lambda x, y: kernels.ragged_distances([x, y, x[:, :6]], "hamming"),
    "rdm_similarity": lambda x, y: kernels.rdm_similarity(y, y),
    "self_join, k": lambda x, y: kernels.self_join(x, 2, metric="cityblock"),
    "self_join, threshold": lambda x, y: kernels.self_join(x, threshold=0.5),
    "sharded_self_join": lambda x, y: kernels.sharded_self_join(x, 2, "cityblock", mesh=MESH, axis="rows"),
    "sharded_top_k": lambda x, y: kernels.sharded_top_k(y, x, 2, "cityblock", mesh=MESH, axis="rows"),
    "spearman_similarity": lambda x, y: kernels.spearman_similarity(y, x),
    "top_k": lambda x, y: kernels.top_k(y, x, 2),
    "top_k, int8": lambda x, y: kernels.top_k(y, kernels.prepare(x, "euclidean", "int8"), 2),
}
MESH = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("rows",))
every_call = pytest.mark.parametrize("name", CALLS)


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for output, reference in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert output.dtype == reference.dtype
        np.testing.assert_allclose(output, reference, rtol=1e-6, atol=1e-6)


def test_the_table_has_every_public_kernel():
    assert {name.split(",")[0] for name in CALLS} == {name for name, value in vars(kernels).items() if callable(value)}


@every_call
def test_without_implicit_transfers_and_without_nan(name):
    """Rank promotion and dtype promotion are off already: see conftest."""
    arrays = [jax.device_put(x) for x in (X, Y)]
    want = CALLS[name](X, Y)
    with jax.transfer_guard("disallow"), jax.debug_nans(True):
        assert_same(CALLS[name](X, Y), want)
    if name != "ragged_distances":  # the caller's slice of a jax array is a transfer of the caller's
        with jax.transfer_guard("disallow"):
            assert_same(CALLS[name](*arrays), want)


@pytest.mark.parametrize("name", [name for name in CALLS if "threshold" not in name])  # which takes concrete arrays
def test_types_in_64_bit_mode(name):
    want = jax.eval_shape(CALLS[name], X, Y)
    with jax.enable_x64(True):
        got = jax.eval_shape(CALLS[name], X.astype(np.float64), Y)
    assert jax.tree.leaves(got) == jax.tree.leaves(want)


@pytest.mark.parametrize(
    "name", [name if name == "top_k" else pytest.param(name, marks=pytest.mark.long) for name in CALLS]
)
def test_results_in_64_bit_mode(name):
    want = CALLS[name](X, Y)
    with jax.enable_x64(True):
        assert_same(CALLS[name](X.astype(np.float64), jnp.asarray(Y, jnp.float64)), want)


@every_call
def test_results_can_be_pickled(name):
    result = CALLS[name](X, Y)
    restored = pickle.loads(pickle.dumps(result))
    assert type(restored) is type(result)
    assert_same(restored, result)
