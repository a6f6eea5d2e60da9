"""Pieces in 64-bit types, in programs of 32-bit mode: results are those of 64-bit mode, also after transformations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from modeldiff_jax.runtime import x64
from modeldiff_jax.runtime.flops import count_flops

FAR = 2**40
X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
K = np.int32([[3, 1, 2, 0], [0, 2, 2, 1], [5, 4, 3, 7]])


def floats(x):
    """Of operations whose rules in JAX make 32-bit constants outside of 64-bit mode, as float32."""
    x = x.astype(np.float64)
    y = jnp.sort(x, 0) * x.max(1, keepdims=True) + jnp.take(x, np.int64([2, 0, 1]), 0)
    y = lax.scan(lambda c, row: (jnp.tanh(c + row), c), y[0], y)[1] @ x.T
    return y[jnp.argmax(y, 0)].sum().astype(np.float32)


def integers(k):
    """Of integers beyond 32 bits."""
    a = k.astype(np.int64) + FAR
    at = (a - FAR) % 3
    return (
        jnp.argmax(a, -1),
        a @ a.T % 1000,
        lax.dynamic_update_slice(a, a[:1, :1] * 2, (at[0, 0], at[0, 1])),
        jnp.where(k > 1, a, 2**62),
        lax.while_loop(lambda s: s[0] < FAR * 4, lambda s: (s[0] * 2, s[1] + 1), (a[0, 0], 0)),
    )


def piece(function):
    return lambda x: x64.in_64_bits(lambda: function(jnp.asarray(x)))


def check(got, want, rtol=1e-6):
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    assert [leaf.dtype for leaf in got] == [leaf.dtype for leaf in want]
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=rtol)


def exported(function):
    def call(x):
        return export.deserialize(export.export(jax.jit(function))(x).serialize()).call(x)

    return call


ORDERS = {
    "eager": lambda f: f,
    "jit": jax.jit,
    "vmap": lambda f: lambda x: jax.vmap(f)(x[None]),
    "jit of vmap": lambda f: lambda x: jax.jit(jax.vmap(f))(x[None]),
    "vmap of jit": lambda f: lambda x: jax.vmap(jax.jit(f))(x[None]),
    "export": exported,
}


@functools.cache
def right(function):
    """Returns the result of a function of an example in 64-bit mode."""
    with jax.enable_x64(True):
        return jax.jit(function)(K if function is integers else X)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("function", "x"), [(floats, X), (integers, K)], ids=["floats", "integers"])
def test_values_are_those_of_64_bit_mode(function, x, order):
    want = right(function)
    check(ORDERS[order](piece(function))(x), jax.tree.map(lambda v: v[None], want) if "vmap" in order else want)


SLOPE = functools.partial(right, jax.grad(floats))


@pytest.mark.parametrize(
    "differentiated",
    [
        lambda f: jax.jit(jax.grad(f)),
        lambda f: jax.grad(jax.jit(f)),
        jax.jacfwd,
        lambda f: jax.grad(jax.checkpoint(f)),
        lambda f: lambda x: jax.vmap(jax.grad(jax.jit(f)))(x[None])[0],
    ],
    ids=["jit of grad", "grad of jit", "forward", "remat", "vmap of grad of jit"],
)
def test_derivatives_are_those_of_64_bit_mode(differentiated):
    check(differentiated(piece(floats))(X), SLOPE(), rtol=1e-5)


def test_second_derivatives():
    def cubed(x):
        return (jnp.sort(x.astype(np.float64)) ** 3).sum().astype(np.float32)

    x = X[0]
    check(jax.jit(jax.hessian(piece(cubed)))(x), np.diag(6 * x))


def test_symbolic_sizes():
    (n,) = export.symbolic_shape("n")
    program = jax.jit(
        piece(lambda k: (jnp.cumsum(k.astype(np.int64) * FAR), jnp.argmax(k.astype(np.int64)), k.shape[0] + 0 * k))
    )
    shared = export.deserialize(export.export(program)(jax.ShapeDtypeStruct((n,), np.int32)).serialize())
    sums, largest, size = shared.call(np.int32([3, 5, 1]))
    np.testing.assert_array_equal(sums, np.int64([3, 8, 9]) * FAR)
    assert (int(largest), int(size[0])) == (1, 3)


def test_the_mode_around_stays():
    x64.in_64_bits(lambda: jnp.zeros(3, np.int64))
    assert jnp.asarray(1.0).dtype == np.float32
    assert not jax.config.jax_enable_x64


def test_values_that_are_no_arrays_pass_through():
    kept = np.arange(3)
    result = x64.in_64_bits(lambda: (kept, None, "words", 3))
    assert result[0] is kept
    assert result[1:] == (None, "words", 3)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float64])
def test_arrays_keep_their_types(dtype):
    x = np.asarray([3, 2**53], dtype)
    for made in (x64.as_array(x), x64.as_array(np.float32([3]), dtype), x64.as_array(x64.as_array(x))):
        assert made.dtype == dtype
    np.testing.assert_array_equal(x64.as_array(x), x)


@pytest.mark.parametrize("place", [np.asarray, x64.as_array], ids=["numpy", "jax"])
def test_saturated_integers_keep_their_order(place):
    x = np.int64([-(2**63), -(2**31) - 1, -5, 0, 7, 2**31, 2**63 - 1])
    result = x64.saturated(place(x))
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result, np.clip(x, -(2**31), 2**31 - 1))
    np.testing.assert_array_equal(x64.saturated(place(np.uint64([1, 2**64 - 1]))), [1, 2**31 - 1])


def test_operations_of_a_piece_are_counted():
    def product(x):
        return x64.in_64_bits(lambda: x.astype(np.float64) @ x.T.astype(np.float64))

    assert count_flops(jax.make_jaxpr(product)(X)) == 2 * 3 * 4 * 3


def test_known_values_are_evaluated_at_once():
    def program(x):
        known = np.int64([3, FAR, 1])
        place = x64.in_types_of(known, lambda: jnp.argmax(jnp.asarray(known)))
        assert not isinstance(place, jax.core.Tracer)
        return x + place.astype(np.int32)

    assert int(jax.jit(program)(np.int32(1))) == 2


def test_narrow_values_are_left_to_the_mode_around():
    def program(x):
        return x64.in_types_of((x, np.float32(2)), lambda: x * 2.0)

    assert "x64" not in str(jax.make_jaxpr(program)(X))
    assert "x64" in str(jax.make_jaxpr(program)(x64.as_array(X, np.float64)))
