"""Operations by kind of product, loops as often as they run."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from modeldiff_jax.profiling import work
from modeldiff_jax.profiling.machine import DEFAULT
from modeldiff_jax.profiling.work import size_in_bytes, work_of

M, N, K = 8, 16, 32
PRODUCT = 2 * M * N * K


def matrices(dtype=jnp.float32):
    return jnp.ones((M, K), dtype), jnp.ones((K, N), dtype)


def count(function, *args):
    return work_of(jax.jit(function).trace(*args).jaxpr)


@pytest.mark.parametrize(
    ("function", "flops"),
    [
        pytest.param(jnp.matmul, PRODUCT, id="product"),
        pytest.param(lambda a, b: jnp.tanh(a @ b), PRODUCT + M * N, id="and one for each value"),
        pytest.param(lambda a, b: jax.lax.scan(lambda c, _: (c + a @ b, None), jnp.zeros((M, N)), length=7)[0],
                     7 * (PRODUCT + M * N), id="scan"),
        pytest.param(lambda a, b: jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: jnp.zeros((M, N))),
                     PRODUCT + 1, id="the dearer branch"),
        pytest.param(lambda a, b: a.T.reshape(-1)[:3], 0, id="moves"),
    ],
)  # fmt: skip
def test_operations(function, flops):
    counted = count(function, *matrices())
    assert counted.flops == flops
    assert counted.flops == sum(counted.by_operator.values())
    assert not counted.open_loops
    assert counted.uneven_branches == ("cond" in str(jax.make_jaxpr(function)(*matrices())))


def test_a_pallas_kernel_counts_once_for_each_place_of_its_grid():
    def double(x_ref, y_ref):
        y_ref[...] = 2 * x_ref[...]

    def call(x):
        spec = pl.BlockSpec((8,), lambda i: (i,))
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pl.pallas_call(double, shape, grid=5, in_specs=[spec], out_specs=spec, interpret=True)(x)

    assert count(call, jnp.ones(40)).by_operator["mul"] == 40


def test_loops_whose_trips_depend_on_data_are_reported():
    def halve(x):
        return jax.lax.while_loop(lambda x: x[0] > 1, lambda x: x / 2, x)

    counted = count(halve, jnp.ones(10))
    assert counted.open_loops
    assert counted.by_operator["div"] == 10


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "int8"])
def test_products_count_by_their_type(dtype):
    counted = count(jnp.matmul, *matrices(dtype))
    assert counted.by_kind == {dtype: PRODUCT}


def test_products_at_jaxs_default_precision_have_a_separate_roof_off_the_cpu(monkeypatch):
    monkeypatch.setattr(work.jax, "default_backend", lambda: "gpu")
    highest = count(lambda a, b: jnp.matmul(a, b, precision="highest"), *matrices())
    assert highest.by_kind == {"float32": PRODUCT}
    assert count(jnp.matmul, *matrices()).by_kind == {DEFAULT: PRODUCT}


def test_bytes_of_arrays():
    tree = {"a": jnp.ones((3, 5)), "b": (jnp.ones(7, jnp.bfloat16), jax.ShapeDtypeStruct((), jnp.int8))}
    assert size_in_bytes(tree) == 4 * 15 + 2 * 7 + 1
