"""What holds for every variant of every kernel that compares vectors, from one table."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from modeldiff_jax import kernels
from modeldiff_jax.kernels import correlation, cosine, paired, pairwise, rdm

from . import oracles
from .samples import vectors

N, K, C = 6, 5, 19


class Row(NamedTuple):
    """A kernel as it is called, its float64 definition, and what rows of its two arguments are."""

    call: object
    oracle: object
    variants: object
    same_rows: bool = False  # the two arguments have rows for the same things
    tolerance: float = 3e-6


def _vectors_alike(similarity, metric):
    def oracle(a, b):
        names = {"euclidean": "euclidean", "cosine": "cosine", "cityblock": "cityblock", "sqeuclidean": "sqeuclidean"}
        x, y = (distance.pdist(np.asarray(side, np.float64), names[metric]) for side in (a, b))
        if similarity == "cosine":
            return 1 - distance.cosine(x, y)
        return (stats.spearmanr if similarity == "spearman" else stats.pearsonr)(x, y)[0]

    return oracle


TABLE = {
    **{
        f"paired {metric}": Row(
            partial(kernels.paired_distances, metric=metric),
            partial(oracles.paired, metric=metric),
            paired.VARIANTS,
            True,
        )
        for metric in paired.METRICS
    },
    **{
        f"pairwise {metric}": Row(
            partial(kernels.pairwise_distances, metric=metric),
            partial(oracles.pairwise, metric=metric),
            pairwise.VARIANTS,
        )
        for metric in paired.METRICS
    },
    "cosine similarity": Row(kernels.cosine_similarity, oracles.cosine_similarity, cosine.VARIANTS),
    "pearson": Row(kernels.pearson_similarity, oracles.pearson, correlation.VARIANTS),
    "spearman": Row(kernels.spearman_similarity, oracles.spearman, correlation.VARIANTS),
    **{
        f"rdm {similarity} of {metric}": Row(
            partial(kernels.rdm_similarity, metric=metric, similarity=similarity),
            _vectors_alike(similarity, metric),
            rdm.VARIANTS,
            True,
        )
        for similarity, metric in [
            ("pearson", "cosine"),
            ("pearson", "sqeuclidean"),
            ("cosine", "sqeuclidean"),
            ("spearman", "cityblock"),
        ]
    },
}


ONE_OF_EACH = ("paired cosine", "pairwise cosine", "cosine similarity", "spearman", "rdm pearson of sqeuclidean")


def each(default):
    """Every variant of every kernel: the fast ones of the rows in `default` now, the others in the long step."""
    return pytest.mark.parametrize(
        ("row", "variant"),
        [
            pytest.param(
                *(row, variant),
                id=f"{name}-{variant}",
                marks=[] if name in default and variant != "reference" else [pytest.mark.long],
            )
            for name, row in TABLE.items()
            for variant in row.variants
        ],
    )


every, every_law = each(tuple(TABLE)), each(ONE_OF_EACH)


def arguments(row, seed=0):
    a, b = vectors((N, C), seed)
    return a, b if row.same_rows else b[:K]


@every
def test_agrees_with_float64_is_float32_and_needs_no_jit(row, variant):
    call = partial(row.call, implementation=variant)
    a, b = arguments(row)
    got = call(a, b)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, row.oracle(a, b), rtol=row.tolerance, atol=3e-7)
    np.testing.assert_allclose(jax.jit(call)(a, b), got, rtol=2e-6, atol=2e-7)


@every_law
def test_other_types_are_what_they_are_in_float32(row, variant):
    for dtype in ("bfloat16", "float16", "float64", "uint8"):
        check_type(row, variant, dtype)


def check_type(row, variant, dtype):
    a, b = (
        x.astype(dtype) if dtype == "float64" else np.asarray(jnp.asarray(9 * x).astype(dtype)) for x in arguments(row)
    )
    want = row.call(a.astype(np.float32), b.astype(np.float32), implementation=variant)
    np.testing.assert_array_equal(row.call(a, b, implementation=variant), want)


@every_law
def test_vmap_is_a_loop(row, variant):
    call = partial(row.call, implementation=variant)
    first, second = arguments(row), arguments(row, seed=1)
    got = jax.vmap(call)(*map(np.stack, zip(first, second, strict=True)))
    np.testing.assert_allclose(got, [call(*first), call(*second)], rtol=2e-6, atol=2e-7)


@every_law
def test_the_matmul_precision_setting_changes_nothing(row, variant):
    a, b = arguments(row)
    call = jax.jit(partial(row.call, implementation=variant))
    programs = set()
    for setting in ("bfloat16", "tensorfloat32", "highest"):
        with jax.default_matmul_precision(setting):
            programs.add(call.lower(a, b).as_text())
    assert len(programs) == 1
    assert "precision = [DEFAULT" not in programs.pop()


@every_law
def test_nan_does_not_leave_its_rows(row, variant):
    a, b = arguments(row)
    want = np.array(row.call(a, b, implementation=variant))
    a = a.copy()
    a[2, 3] = np.nan
    want[2 if want.ndim else ...] = np.nan
    np.testing.assert_allclose(row.call(a, b, implementation=variant), want, rtol=2e-6, atol=2e-7)


@every_law
def test_gradients_are_finite_and_those_of_the_reference(row, variant):
    a, b = arguments(row)
    b = b.copy()
    b[1], b[2] = 0, a[2]  # a vector without a direction, and two that are equal

    def gradient(implementation):
        total = jax.jit(jax.grad(lambda a, b: jnp.sum(jnp.tanh(row.call(a, b, implementation=implementation)))))
        return np.asarray(total(a, b))

    got = gradient(variant)
    assert np.isfinite(got).all()
    if variant != "reference":
        want = gradient("reference")
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5 * (np.abs(want).max() + 1e-3))
