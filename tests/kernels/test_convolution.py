"""Convolution and its transpose: the fast forms against XLA's own, in value and both gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.convolution import VARIANTS, convolve, convolve_transpose

CASES = {  # channels, outputs, groups, taps, options
    "dense": (8, 6, 1, (3, 3), {"padding": ((1, 1), (1, 1))}),
    "strided": (8, 6, 1, (3, 3), {"padding": ((1, 1), (1, 1)), "strides": (2, 2)}),
    "dilated": (8, 6, 1, (3, 2), {"dilation": (2, 3)}),
    "one tap": (8, 6, 1, (1, 1), {"strides": (2, 1)}),
    "one tap, four groups": (8, 12, 4, (1, 1), {}),
    "blocks": (8, 6, 1, (2, 3), {"strides": (2, 3)}),
    "blocks, padded": (8, 6, 1, (2, 3), {"strides": (2, 3), "padding": ((1, 0), (2, 1))}),
    "one place": (8, 6, 1, (9, 10), {}),
    "one place, padded": (8, 6, 1, (11, 12), {"padding": ((1, 1), (2, 0))}),
    "one place, dilated": (8, 6, 1, (4, 2), {"padding": ((1, 0), (0, 0)), "dilation": (3, 9)}),
    "one place by its stride": (8, 6, 1, (3, 3), {"strides": (9, 10), "padding": ((2, 0), (0, 0))}),
    "one place, all padding": (8, 6, 1, (3, 3), {"strides": (30, 30), "padding": ((5, 0), (0, 0))}),
    "two groups": (8, 6, 2, (3, 3), {"strides": (2, 2)}),
    "twelve groups": (24, 12, 12, (3, 3), {}),
    "depthwise": (8, 8, 8, (3, 3), {"strides": (2, 2)}),
    "depthwise, multiplied": (8, 16, 8, (3, 3), {}),
}
every_case = pytest.mark.parametrize(("channels", "outputs", "groups", "taps", "options"), CASES.values(), ids=CASES)


def arrays(channels, outputs, groups, taps):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 9, 10, channels)).astype(np.float32)
    return x, rng.standard_normal((*taps, channels // groups, outputs)).astype(np.float32)


def values_and_gradients(function, x, w, options):
    """The result and the gradients to both arguments, for every variant."""

    @jax.jit
    def run(x, w):
        result = []
        for variant in (*VARIANTS, None):
            y, back = jax.vjp(lambda x, w, v=variant: function(x, w, implementation=v, **options), x, w)
            result.append((y, *back(jnp.cos(jnp.arange(y.size, dtype=y.dtype).reshape(y.shape)))))
        return result

    return run(x, w)


@every_case
@pytest.mark.parametrize("function", [convolve, convolve_transpose])
def test_variants_agree_with_xlas_convolution_in_value_and_gradients(
    function, channels, outputs, groups, taps, options
):
    x, w = arrays(channels, outputs, groups, taps)
    if function is convolve_transpose:
        x = np.random.default_rng(1).standard_normal((2, 4, 5, outputs)).astype(np.float32)
    fast, reference, default = values_and_gradients(
        function, x, w, {**options, "groups": groups, "layout": "channels_last"}
    )
    for output, chosen, want in zip(fast, default, reference, strict=True):
        tolerance = 1e-5 * float(np.abs(want).max())
        np.testing.assert_allclose(output, want, rtol=0, atol=tolerance)
        np.testing.assert_allclose(chosen, want, rtol=0, atol=tolerance)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_layouts_agree(groups):
    x, w = arrays(8, 8, groups, (3, 2))
    first = convolve(np.moveaxis(x, -1, 1), np.moveaxis(w, (-1, -2), (0, 1)), groups=groups)
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), convolve(x, w, groups=groups, layout="channels_last"))


@pytest.mark.parametrize("name", ["strided", "blocks", "two groups"])
def test_the_transpose_is_the_input_gradient(name):
    channels, outputs, groups, taps, options = CASES[name]
    x, w = arrays(channels, outputs, groups, taps)
    x = x[:, :, : 10 - (10 - taps[1]) % options["strides"][1]]  # whose every entry the filter meets
    options = {**options, "groups": groups, "layout": "channels_last"}
    y, back = jax.vjp(lambda x: convolve(x, w, **options), x)
    gradient = back(y)[0]
    transposed = convolve_transpose(y, w, **options)
    inside = (slice(None), *map(slice, transposed.shape[1:-1]))
    np.testing.assert_allclose(gradient[inside], transposed, rtol=1e-5, atol=1e-4)
    assert not np.asarray(gradient)[:, transposed.shape[1] :].any()


def test_vmap_over_filters_and_a_symbolic_batch():
    x, w = arrays(8, 6, 1, (3, 3))
    stacked = np.stack([w, -2 * w])
    mapped = jax.vmap(lambda w: convolve(x, w, layout="channels_last"))(stacked)
    np.testing.assert_allclose(mapped[1], -2 * mapped[0], rtol=1e-4, atol=1e-4)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(convolve(x, w, strides=(2, 2), layout="channels_last")))))
    (n,) = export.symbolic_shape("n")
    exported = export.export(gradient)(jax.ShapeDtypeStruct((n, *x.shape[1:]), jnp.float32))
    np.testing.assert_allclose(exported.call(x), gradient(x), rtol=1e-5, atol=1e-5)


def test_other_devices_get_xlas_convolution_and_its_gradient():
    x, w = arrays(8, 6, 2, (3, 3))
    gradient = jax.jit(jax.grad(lambda x, w: jnp.sum(convolve(x, w, groups=2, layout="channels_last") ** 2)))
    assert "feature_group_count = 2" in export.export(gradient, platforms=["cuda"])(x, w).mlir_module()
    assert "feature_group_count = 2" not in export.export(gradient, platforms=["cpu"])(x, w).mlir_module()


@pytest.mark.parametrize(
    ("function", "groups", "options", "rule"),
    [
        (convolve, 3, {}, "input's channels"),
        (convolve, 0, {}, "input's channels"),
        (convolve_transpose, 1, {}, "input's channels"),
        (convolve, 1, {"strides": (1,)}, "one stride"),
        (convolve, 1, {"dilation": (1, 0)}, "positive"),
        (convolve, 1, {"implementation": "fast"}, "implementation"),
    ],
)
def test_refuses_what_does_not_fit(function, groups, options, rule):
    x, w = arrays(8, 6, 1, (3, 3))
    with pytest.raises(InvalidInputError, match=rule):
        function(x, w, groups=groups, layout="channels_last", **options)
