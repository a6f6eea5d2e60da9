"""Counted operations against XLA's count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from modeldiff_jax.runtime.flops import count_flops, count_values

X = np.ones((2, 8, 16, 16), np.float32)


def _conv(x, groups=1, outputs=12, stride=1):
    filters = jnp.ones((outputs, 8 // groups, 3, 3))
    return lax.conv_general_dilated(x, filters, (stride, stride), "VALID", feature_group_count=groups)


def _two_convs(x):
    return _conv(jax.nn.relu(_conv(x, outputs=8)) * 2 + 1)


@pytest.mark.parametrize(
    "function",
    [
        _conv,
        lambda x: _conv(x, groups=8, outputs=16),
        lambda x: _conv(x, groups=2, outputs=4, stride=2),
        _two_convs,
        jax.vmap(lambda x: _two_convs(x[None])[0]),
        jax.jit(_two_convs),
        jax.value_and_grad(lambda x: jnp.sum(_two_convs(x) ** 2)),
        lambda x: x.reshape(32, 128) @ jnp.ones((128, 50)),
        lambda x: jnp.einsum("bchw,bchv->bcwv", x, x),
        lambda x: jnp.sum(x * x, axis=(2, 3)),
        lambda x: jnp.transpose(x, (0, 2, 3, 1)).reshape(2, -1),
    ],
)
def test_as_xla_counts(function):
    ours = count_flops(jax.make_jaxpr(function)(X))
    theirs = jax.jit(function).lower(X).cost_analysis().get("flops", 0)
    assert ours == pytest.approx(theirs, rel=0.2, abs=10)  # XLA leaves out products with padding


def test_a_scan_counts_each_trip_and_a_branch_its_most_expensive_side():
    weights = jnp.ones((16, 16))

    def trips(n):
        return count_flops(jax.make_jaxpr(lambda x: lax.scan(lambda c, _: (c @ weights, None), x, length=n)[0])(X))

    assert trips(30) == pytest.approx(10 * trips(3))
    assert trips(1) == 2 * X.size * 16

    def branch(x, which):
        return lax.cond(which, lambda x: x @ weights, lambda x: x, x)

    assert count_flops(jax.make_jaxpr(branch)(X, True)) == pytest.approx(trips(1), rel=0.01)


def test_a_loop_of_unknown_length_counts_once():
    def loop(x, n):
        return lax.fori_loop(0, n, lambda i, c: c @ jnp.ones((16, 16)), x)

    assert count_flops(jax.make_jaxpr(loop)(X, 9)) == pytest.approx(2 * X.size * 16, rel=0.01)


def test_values_are_those_of_every_step():
    def chain(x):
        return jnp.sum(x * 2 + 1)

    assert count_values(jax.make_jaxpr(chain)(X)) == 2 * X.size + 1
    looped = jax.make_jaxpr(lambda x: lax.scan(lambda c, _: (c * 2, None), x, length=7)[0])(X)
    assert count_values(looped) == 7 * X.size
    branched = jax.make_jaxpr(lambda x, which: lax.cond(which, lambda x: x * 2 + 1, lambda x: x, x))(X, True)
    assert count_values(branched) == pytest.approx(2 * X.size, abs=2)
