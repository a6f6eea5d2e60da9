"""Depthwise convolution: both variants against float64, its gradients, transformations and compiled form."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.depthwise_conv import VARIANTS, depthwise_conv

GEOMETRIES = {  # spatial sizes, taps, strides, padding, dilation
    "plain": ((9, 8), (3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "padded": ((9, 8), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "strided": ((9, 8), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "five taps, strided": ((11, 12), (5, 5), (2, 2), ((2, 2), (2, 2)), (1, 1)),
    "uneven": ((9, 13), (2, 5), (3, 2), ((0, 2), (3, 1)), (1, 1)),
    "dilated": ((13, 12), (3, 3), (1, 1), ((2, 2), (3, 3)), (2, 3)),
    "dilated by the stride": ((13, 12), (3, 3), (2, 3), ((2, 2), (3, 3)), (2, 3)),
    "stride beyond taps": ((10, 11), (2, 1), (3, 4), ((0, 0), (0, 0)), (1, 1)),
    "negative padding": ((9, 8), (3, 3), (2, 1), ((-1, 1), (1, -2)), (1, 1)),
    "1-d": ((15,), (5,), (2,), ((2, 2),), (1,)),
    "3-d": ((5, 6, 5), (3, 2, 3), (2, 1, 2), ((1, 1), (0, 1), (1, 0)), (1, 1, 1)),
}
CHANNELS = 3

every_geometry = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
every_variant = pytest.mark.parametrize("variant", [*VARIANTS, None])


def sample(geometry, multiplier=1):
    sizes, taps, *_ = geometry
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, CHANNELS, *sizes)).astype(np.float32)
    return x, rng.standard_normal((CHANNELS * multiplier, 1, *taps)).astype(np.float32)


def call(x, w, geometry, **more):
    _, _, strides, padding, dilation = geometry
    return depthwise_conv(x, w, strides=strides, padding=padding, dilation=dilation, **more)


def oracle(x, w, geometry):
    """The definition, one output at a time, in float64."""
    sizes, taps, strides, padding, dilation = geometry
    x, w = x.astype(np.float64), w.astype(np.float64)
    grown = np.pad(x, [(0, 0), (0, 0), *((max(b, 0), max(a, 0)) for b, a in padding)])
    cuts = [slice(max(-b, 0), max(-b, 0) + n + b + a) for n, (b, a) in zip(sizes, padding, strict=True)]
    padded = grown[(slice(None), slice(None), *cuts)]
    reach = [(t - 1) * d + 1 for t, d in zip(taps, dilation, strict=True)]
    counts = [(n - r) // s + 1 for n, r, s in zip(padded.shape[2:], reach, strides, strict=True)]
    y = np.zeros((x.shape[0], w.shape[0], *counts))
    for place in itertools.product(*map(range, counts)):
        window = [slice(p * s, p * s + r, d) for p, s, r, d in zip(place, strides, reach, dilation, strict=True)]
        met = np.repeat(padded[(slice(None), slice(None), *window)], w.shape[0] // x.shape[1], 1)
        y[(slice(None), slice(None), *place)] = (met * w[:, 0]).reshape(*met.shape[:2], -1).sum(-1)
    return y


@every_variant
@every_geometry
def test_agrees_with_float64(geometry, variant):
    x, w = sample(geometry)
    y = jax.jit(lambda x, w: call(x, w, geometry, implementation=variant))(x, w)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, oracle(x, w, geometry), rtol=1e-5, atol=1e-5)


@every_geometry
def test_gradients_agree_with_those_jax_derives_for_the_reference(geometry):
    x, w = sample(geometry)

    @jax.jit
    def gradients(x, w, g):
        def of(variant):
            return jax.vjp(lambda x, w: call(x, w, geometry, implementation=variant), x, w)[1](g)

        return [of(variant) for variant in ("xla", None, "reference")]

    g = np.random.default_rng(1).standard_normal(oracle(x, w, geometry).shape).astype(np.float32)
    shifted, default, derived = gradients(x, w, g)
    for output, platform, want in zip(shifted, default, derived, strict=True):
        np.testing.assert_allclose(output, want, rtol=1e-5, atol=2e-5)
        np.testing.assert_array_equal(output, platform)


@every_variant
def test_layouts_and_channel_multiplier(variant):
    geometry = GEOMETRIES["strided"]
    x, w = sample(geometry, multiplier=4)
    first = call(x, w, geometry, implementation=variant)
    np.testing.assert_allclose(first, oracle(x, w, geometry), rtol=1e-5, atol=1e-5)
    last = call(
        np.moveaxis(x, 1, -1),
        np.moveaxis(w, (0, 1), (-1, -2)),
        geometry,
        layout="channels_last",
        implementation=variant,
    )
    np.testing.assert_array_equal(np.moveaxis(last, -1, 1), first)


@pytest.mark.parametrize(("dtype", "small"), [("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_low_precision_is_accumulated_in_float32(dtype, small):
    """1 and 63 times half a unit in its last place, which adding in the low precision would leave at 1."""
    x = jnp.asarray(np.float32([[[1.0] + [small] * 63]]), dtype)
    y = depthwise_conv(x, jnp.ones((1, 1, 64), dtype), implementation="xla")
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, np.full((1, 1, 1), 1 + 63 * small, dtype))


def test_vmap_over_inputs_and_filters():
    geometry = GEOMETRIES["five taps, strided"]
    x, w = sample(geometry)
    xs, ws = np.stack([x, -x, 2 * x]), np.stack([w, w[::-1], 3 * w])
    mapped = jax.jit(jax.vmap(lambda x, w: call(x, w, geometry)))(xs, ws)
    for x, w, y in zip(xs, ws, mapped, strict=True):
        np.testing.assert_allclose(y, oracle(x, w, geometry), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["five taps, strided", "dilated", "1-d"])
def test_a_symbolic_batch_is_exported_forward_and_backward(name):
    geometry = GEOMETRIES[name]
    x, w = sample(geometry)
    (n,) = export.symbolic_shape("n")

    @jax.jit
    def gradient(x):
        return jax.grad(lambda x: jnp.sum(jnp.sin(call(x, w, geometry))))(x)

    exported = export.export(gradient)(jax.ShapeDtypeStruct((n, *x.shape[1:]), jnp.float32))
    np.testing.assert_allclose(exported.call(x), gradient(x), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other devices keep the grouped convolution")
@pytest.mark.parametrize("name", ["padded", "strided", "dilated", "1-d"])
def test_no_convolution_is_left_on_cpu_forward_or_backward(name):
    x, w = sample(GEOMETRIES[name])

    def both(x, w):
        return jax.value_and_grad(lambda x: jnp.sum(call(x, w, GEOMETRIES[name]) ** 2))(x)

    assert " convolution(" not in jax.jit(both).lower(x, w).compile().as_text()


def test_other_devices_get_the_grouped_convolution():
    x, w = sample(GEOMETRIES["strided"])
    lowered = export.export(jax.jit(lambda x, w: call(x, w, GEOMETRIES["strided"])), platforms=["cuda"])(x, w)
    assert f"feature_group_count = {CHANNELS}" in lowered.mlir_module()


def test_many_taps_are_left_to_the_reference():
    x, w = np.ones((1, 2, 20), np.float32), np.ones((2, 1, 65), np.float32)
    padding = ((40, 40),)
    with pytest.raises(NotImplementedError, match="taps"):
        depthwise_conv(x, w, padding=padding, implementation="xla")
    np.testing.assert_array_equal(
        depthwise_conv(x, w, padding=padding), depthwise_conv(x, w, padding=padding, implementation="reference")
    )


@pytest.mark.parametrize(
    ("w_shape", "options", "rule"),
    [
        ((3, 2, 3, 3), {}, "one input channel"),
        ((4, 1, 3, 3), {}, "multiple"),
        ((3, 1, 3), {}, "rank"),
        ((3, 1, 3, 3), {"strides": (1,)}, "one stride"),
        ((3, 1, 3, 3), {"padding": ((1, 1),)}, "pair of pads"),
        ((3, 1, 3, 3), {"dilation": (0, 1)}, "positive"),
        ((3, 1, 3, 3), {"implementation": "fast"}, "implementation"),
    ],
)
def test_refuses_what_does_not_fit(w_shape, options, rule):
    with pytest.raises(InvalidInputError, match=rule):
        depthwise_conv(np.zeros((1, 3, 8, 8), np.float32), np.zeros(w_shape, np.float32), **options)
