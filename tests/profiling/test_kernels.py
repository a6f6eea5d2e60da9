"""Every public kernel can be profiled, and its name is in the compiled program."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modeldiff_jax import kernels
from modeldiff_jax.errors import InvalidInputError, LimitExceededError
from modeldiff_jax.kernels.convolution import VARIANTS as CONVOLUTIONS
from modeldiff_jax.kernels.convolution import convolve
from modeldiff_jax.kernels.depthwise_conv import VARIANTS as DEPTHWISE
from modeldiff_jax.kernels.depthwise_conv import depthwise_conv
from modeldiff_jax.profiling.kernels import SIZES, kernel_call, names
from modeldiff_jax.profiling.programs import Budget

SMALL = {"largest": (4, 300), "top_k": (4, 300, 8), "self_join": (40, 8), "rdm_similarity": (6, 8)}
SCOPES = {"pearson_similarity": "cosine_similarity", "spearman_similarity": "cosine_similarity"}
"""Kernels that call another one after some preparation."""


def small(name, **options):
    return kernel_call(name, SMALL.get(name, (5, 8)), options, "float32", 0, Budget())


def variants(name):
    return sys.modules[getattr(kernels, name).__module__].VARIANTS


def scopes(function, *args):
    """Returns the origins of the instructions of a compiled program."""
    return jax.jit(function).lower(*args).compile().as_text()


ALL = [(name, variant) for name in names() for variant in variants(name)]


@pytest.mark.parametrize(("name", "variant"), ALL, ids=[".".join(pair) for pair in ALL])
def test_a_kernels_scope_is_in_the_compiled_program(name, variant):
    try:
        call = small(name, implementation=variant)
        text = scopes(call.function, *call.arrays)
    except NotImplementedError as reason:
        pytest.skip(f"this variant serves other devices: {reason}")
    assert f"{SCOPES.get(name, name)}.{variant}/" in text


@pytest.mark.parametrize("variant", [*CONVOLUTIONS, None])
def test_the_scopes_of_convolutions(variant):
    x, w = jnp.ones((1, 4, 9, 9)), jnp.ones((4, 4, 3, 3))
    assert "convolve/" in scopes(lambda x, w: convolve(x, w, implementation=variant), x, w)


@pytest.mark.parametrize("variant", [*DEPTHWISE, None])
def test_the_scopes_of_depthwise_convolutions(variant):
    x, w = jnp.ones((1, 4, 9, 9)), jnp.ones((4, 1, 3, 3))
    function = lambda x, w: depthwise_conv(x, w, implementation=variant)  # noqa: E731
    assert "depthwise_conv/" in scopes(function, x, w)


def test_every_public_kernel_with_variants_has_sizes():
    public = [name for name in vars(kernels) if callable(getattr(kernels, name))]
    kernels_of_arrays = {name for name in public if hasattr(sys.modules[getattr(kernels, name).__module__], "VARIANTS")}
    assert kernels_of_arrays <= set(SIZES)
    assert set(names()) <= set(public)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("sizes", [(), (5,), (0, 8), (5, -1), (2, 3, 4, 5, 6)])
def test_sizes_that_do_not_fit_are_refused(name, sizes):
    if SIZES[name].fits(sizes):
        assert min(sizes) >= 1
        assert len(sizes) >= 1
        return
    with pytest.raises(InvalidInputError, match="sizes of"):
        kernel_call(name, sizes, {}, "float32", 0, Budget())


@pytest.mark.parametrize(
    ("options", "dtype", "rule"),
    [({"colour": 1}, "float32", "its arguments"), ({}, "float33", "`dtype` is one of")],
)
def test_wrong_options_are_refused(options, dtype, rule):
    with pytest.raises(InvalidInputError, match=rule):
        kernel_call("paired_distances", (5, 8), options, dtype, 0, Budget())


@pytest.mark.parametrize("name", names())
def test_arrays_beyond_the_budget_are_refused_before_they_are_made(name, monkeypatch):
    monkeypatch.setattr(np.random, "default_rng", pytest.fail)
    sizes = (10**9,) * len(SIZES[name].usual)
    with pytest.raises(LimitExceededError, match="at most"):
        kernel_call(name, sizes, {}, "float32", 0, Budget())


def test_the_same_key_gives_the_same_arrays():
    first, again = (kernel_call("paired_distances", (5, 8), {}, "bfloat16", key, Budget()).arrays for key in (3, 3))
    other = kernel_call("paired_distances", (5, 8), {}, "bfloat16", 4, Budget()).arrays
    assert first[0].dtype == jnp.bfloat16
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not (first[0] == other[0]).all()
