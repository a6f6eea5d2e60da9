"""Probes of one space in the inputs of another model: values, gradients, batches, errors, counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from modeldiff_jax.errors import InvalidInputError, NonFiniteError, NotAdaptableError
from modeldiff_jax.models.inputs.probed_input import InputHint, probed_input
from modeldiff_jax.models.inputs.space import generic_space, image_space, signal_space, token_space
from modeldiff_jax.probes import adapt as adapt_module
from modeldiff_jax.probes.adapt import adapt
from tests.helpers.jax_models import flat, model, spec


def probes(space, n=5, seed=0):
    rng = np.random.default_rng(seed)
    if space.kind == "tokens":
        return rng.integers(int(space.low), int(space.high) + 1, (n, *space.shape)).astype(np.int32)
    return rng.uniform(space.low, space.high, (n, *space.shape)).astype(np.float32)


def reactions(a_model, space, x, hint=None):
    """Returns the samples that `flat` got, one by one."""
    return adapt(a_model, space, hint).react(x)


# Values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [(1, 3, 8, 9), ("b", 3, 8, 9), (4, 3, 8, 9), ("b", 8, 9, 3), (1, 512), ("b", 1, 512), ("b", 512, 1), ("b", 5, 6)],
)
@pytest.mark.parametrize("traceable", [True, False])
def test_in_the_models_space_a_probe_is_unchanged(shape, traceable):
    a_model = model(spec(shape), traceable=traceable, apply=flat if traceable else lambda p, x: x.reshape(len(x), -1))
    space = probed_input(a_model).space
    x = probes(space)
    native = np.moveaxis(x, 3, 1) if shape[1:] == (3, 8, 9) else x
    np.testing.assert_array_equal(reactions(a_model, space, x), native.reshape(5, -1))


def test_resize_agrees_with_pillow():
    x = probes(image_space(40, 30, 1))
    seen = reactions(model(spec((1, 1, 16, 24))), image_space(40, 30, 1), x)
    expected = [
        np.asarray(Image.fromarray(image[..., 0]).resize((24, 16), Image.Resampling.BILINEAR)).ravel() for image in x
    ]
    np.testing.assert_allclose(seen, expected, atol=1e-5)


def test_a_signal_keeps_its_course_when_resampled():
    t = np.linspace(0, 1, 2000, endpoint=False) + 1 / 4000
    x = np.stack([np.sin(2 * np.pi * t), t]).astype(np.float32)
    seen = reactions(model(spec((1, 500))), signal_space(2000), x)
    t = np.linspace(0, 1, 500, endpoint=False) + 1 / 1000
    np.testing.assert_allclose(seen, [np.sin(2 * np.pi * t), t], atol=2e-3)


def test_channels():
    x = probes(image_space(8, 8, 3))
    grey = reactions(model(spec((1, 1, 8, 8))), image_space(8, 8, 3), x)
    np.testing.assert_allclose(grey, (x @ [0.299, 0.587, 0.114]).reshape(5, -1), atol=1e-6)
    x = probes(image_space(8, 8, 1))
    colour = reactions(model(spec((1, 8, 8, 3))), image_space(8, 8, 1), x)
    np.testing.assert_array_equal(colour, np.repeat(x, 3, axis=3).reshape(5, -1))
    alpha = reactions(model(spec((1, 8, 8, 4))), image_space(8, 8, 1), x).reshape(5, 8, 8, 4)
    np.testing.assert_array_equal(alpha[..., 3], np.ones((5, 8, 8)))
    x = probes(image_space(8, 8, 4))
    np.testing.assert_array_equal(
        reactions(model(spec((1, 8, 8, 3))), image_space(8, 8, 4), x), x[..., :3].reshape(5, -1)
    )


def test_bytes_are_rounded_and_the_whole_range_is_used():
    x = np.zeros((2, 8, 8, 3), np.float32)
    x[1], x[0, 0, 0] = 1, (0.4999 / 255, 0.5001 / 255, 1)
    seen = reactions(model(spec((1, 8, 8, 3), "uint8")), image_space(8, 8), x)
    assert seen[0, :3].tolist() == [0, 1, 255]
    assert (seen[1] == 255).all()


def test_value_range_of_the_hint():
    x = probes(image_space(8, 8))
    seen = reactions(model(spec((1, 8, 8, 3))), image_space(8, 8), x, InputHint(value_range=(-2, 3)))
    np.testing.assert_allclose(seen, -2 + 5 * x.reshape(5, -1), atol=1e-5)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint16"])
def test_tokens_are_cut_repeated_and_wrapped(dtype):
    space, x = token_space(6), np.array([[0, 9, 10, 25, 255, 3]], np.int32)
    hint = InputHint(value_range=(0, 9))
    assert reactions(model(spec((1, 4), dtype)), space, x, hint).tolist() == [[0, 9, 0, 5]]
    assert reactions(model(spec((1, 9), dtype)), space, x, hint).tolist() == [[0, 9, 0, 5, 5, 3, 0, 9, 0]]


def test_images_reach_a_model_of_flat_vectors_unchanged():
    x = probes(image_space(8, 8, 1))
    adapter = adapt(model(spec(("b", 64))), image_space(8, 8, 1))
    np.testing.assert_array_equal(adapter.react(x), x.reshape(5, -1))
    assert adapter.steps == ("reshape 8x8x1 -> 64",)


# Steps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "inputs", "hint", "steps"),
    [
        (image_space(8, 8), (spec((1, 8, 8, 3)),), None, ()),
        (image_space(8, 8), (spec((1, 3, 8, 8)),), None, ("NHWC -> NCHW",)),
        (
            image_space(224, 224),
            (spec((1, 1, 48, 192)),),
            InputHint(value_range=(0, 255)),
            (
                "RGB -> grey",
                "resize 224x224 -> 48x192 (bilinear, antialiased)",
                "range [0,1] -> [0,255]",
                "NHWC -> NCHW",
            ),
        ),
        (image_space(8, 8), (spec((1, 8, 8, 3), "uint8"),), None, ("range [0,1] -> [0,255]", "float32 -> uint8")),
        (image_space(8, 8), (spec((1, 8, 8, 3), "float16"),), None, ("float32 -> float16",)),
        (signal_space(1000), (spec((1, 512)),), None, ("resample 1000 -> 512 samples (linear, antialiased)",)),
        (
            token_space(9),
            (spec((1, 4), "int64"),),
            InputHint(value_range=(0, 213)),
            ("length 9 -> 4, cut", "vocabulary 214 <- 256 by modulo"),
        ),
        (
            signal_space(512),
            (spec((1, 512)), spec((2, 1, 4), name="state"), spec((), "int64", "sr")),
            None,
            ("input `sr` fixed to 16000", "state `state` zeros"),
        ),
    ],
)
def test_every_change_is_reported(space, inputs, hint, steps):
    assert adapt(model(*inputs), space, hint).steps == steps


# Errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "shape", "dtype"),
    [
        (image_space(8, 8), ("b", 40), "int32"),
        (token_space(40), ("b", 3, 8, 8), "float32"),
        (image_space(8, 8), ("b", 512), "float32"),
        (signal_space(512), ("b", 3, 8, 8), "float32"),
        (generic_space((20,)), ("b", 21), "float32"),
    ],
)
def test_probes_that_cannot_be_adapted_are_refused_naming_both(space, shape, dtype):
    with pytest.raises(NotAdaptableError) as caught:
        adapt(model(spec(shape, dtype)), space)
    assert str(space) in caught.value.got
    assert f"x: {dtype}" in caught.value.where


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((0, 8, 8, 3), np.float32),
        np.zeros((2, 8, 8), np.float32),
        np.zeros((2, 3, 8, 8), np.float32),
        np.zeros((2, 8, 8, 3), complex),
    ],
)
def test_probes_of_another_shape_or_type_are_refused(x):
    adapter = adapt(model(spec((1, 8, 8, 3))), image_space(8, 8))
    with pytest.raises(InvalidInputError):
        adapter.react(x)
    assert adapter.queries == 0


@pytest.mark.parametrize("traceable", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_outputs_are_an_error_that_names_the_inputs(traceable, bad, monkeypatch):
    monkeypatch.setattr(adapt_module, "_CHUNK_ROWS", 4)
    xp = jnp if traceable else np
    a_model = model(spec(("b", 6)), apply=lambda p, x: xp.where(x > 0.5, bad, x), traceable=traceable)
    x = np.zeros((10, 6), np.float32)
    x[[3, 7], 2] = 1
    with pytest.raises(NonFiniteError, match=r"2 of 10 inputs, the first of them input 3.*small"):
        adapt(a_model, generic_space((6,))).react(x)


@pytest.mark.parametrize("outputs", [lambda p, x: (), lambda p, x: x.astype(jnp.complex64)])
def test_a_model_without_numbers_to_react_with_is_refused(outputs):
    with pytest.raises(NotAdaptableError):
        adapt(model(spec((1, 6)), apply=outputs, outputs=()), generic_space((6,)))


def _fails(params, x):
    raise RuntimeError("quota exceeded")


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (_fails, "RuntimeError: quota exceeded"),
        (lambda p, x: x[:1], r"3 inputs, outputs float32\[1, 6\]"),
        (lambda p, x: (), "none"),
        (lambda p, x: np.array(["a"] * 3), "outputs"),
    ],
)
def test_a_black_box_that_fails_is_named(apply, message):
    a_model = model(spec(("b", 6)), apply=apply, traceable=False)
    with pytest.raises(InvalidInputError, match=message) as caught:
        adapt(a_model, generic_space((6,))).react(np.zeros((3, 6), np.float32))
    assert "small, inputs 0 to 2" in caught.value.where


def test_a_black_box_has_neither_gradients_nor_trace_nor_known_cost():
    adapter = adapt(model(spec(("b", 6)), traceable=False), generic_space((6,)))
    assert not adapter.has_gradients
    assert adapter.flops(1) is None
    assert adapter.n_components is None
    with pytest.raises(NotAdaptableError, match="black box"):
        _ = adapter.function


# Outputs -----------------------------------------------------------------------------------------------------------


def test_a_reaction_is_all_float_outputs_flattened():
    a_model = model(spec(("b", 6)), apply=lambda p, x: (x.reshape(-1, 2, 3), x[:, :1].astype(int), x.sum(1)))
    x = probes(generic_space((6,)))
    seen = reactions(a_model, generic_space((6,)), x)
    np.testing.assert_allclose(seen, np.concatenate([x, x.sum(1, keepdims=True)], axis=1), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_outputs_become_float32(dtype):
    a_model = model(spec(("b", 6)), apply=lambda p, x: x.astype(dtype))
    x = probes(generic_space((6,)))
    seen = reactions(a_model, generic_space((6,)), x)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, x, atol=1e-2)


def test_integer_outputs_count_only_where_there_is_no_float():
    a_model = model(spec(("b", 6)), apply=lambda p, x: (jnp.argmax(x, 1), x > 0))
    x = probes(generic_space((6,)))
    adapter = adapt(a_model, generic_space((6,)))
    np.testing.assert_array_equal(adapter.react(x), np.concatenate([x.argmax(1)[:, None], x > 0], axis=1))
    assert not adapter.has_gradients


# Batches -----------------------------------------------------------------------------------------------------------


def _batch_mean(params, x):
    """Depends on its neighbours, as a sequence model does whose axis 0 is time."""
    return x - x.mean(0, keepdims=True)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("batch", [1, 3, "b"])
@pytest.mark.parametrize("traceable", [True, False])
def test_any_number_of_probes_through_any_batch_size(n, batch, traceable, monkeypatch):
    monkeypatch.setattr(adapt_module, "_CHUNK_ROWS", 4)
    seen = []

    def apply(params, x):
        seen.append(x.shape[0])
        return x * 2

    adapter = adapt(model(spec((batch, 6)), apply=apply, traceable=traceable), generic_space((6,)))
    x = probes(generic_space((6,)), n)
    np.testing.assert_array_equal(adapter.react(x), 2 * x)
    assert adapter.queries == n
    adapter.react(x)
    assert adapter.queries == 2 * n
    if batch != "b":
        assert set(seen) == {batch}


def test_a_reaction_depends_on_its_probe_only():
    adapter = adapt(model(spec(("time", 6)), apply=_batch_mean), generic_space((6,)))
    assert not adapter.react(probes(generic_space((6,)))).any()


def test_one_compilation_serves_chunks_of_all_sizes_and_models_of_one_graph(monkeypatch):
    monkeypatch.setattr(adapt_module, "_CHUNK_ROWS", 4)
    traces = []

    def apply(params, x):
        traces.append(x.shape)
        return x * params["w"]

    x = probes(generic_space((6,)), 7)
    adapters = [adapt(model(spec(("b", 6)), apply=apply, weight=w), generic_space((6,))) for w in (2, 3)]
    before = len(traces)
    for weight, adapter in zip((2, 3), adapters, strict=True):
        np.testing.assert_array_equal(adapter.react(x), weight * x)
    assert len(traces) == before + 1
    assert adapters[0].function == adapters[1].function
    assert hash(adapters[0].function) == hash(adapters[1].function)


@pytest.mark.parametrize("traceable", [True, False])
@pytest.mark.parametrize("batch", [1, "b"])
def test_recurrent_state_with_its_batch_elsewhere_starts_at_zero_for_each(traceable, batch):
    def apply(params, x, state):
        assert state.shape == (2, x.shape[0], 4)
        return x[:, :3] + state.sum((0, 2))[:, None], state + x[None, :, :4]

    inputs = (spec((batch, 256)), spec((2, batch, 4), name="state"))
    outputs = (spec((batch, 3), name="y"), spec((2, batch, 4), name="stateN"))
    x = probes(signal_space(256))
    adapter = adapt(model(*inputs, apply=apply, outputs=outputs), signal_space(256))
    expected = np.concatenate([x[:, :3], x[:, :4], x[:, :4]], axis=1)
    np.testing.assert_array_equal(adapter.react(x), expected)


def test_models_are_vmapped_over_their_parameters():
    adapter = adapt(model(spec((1, 6))), generic_space((6,)))
    x = probes(generic_space((6,)))
    stacked = {"w": np.array([1.0, 2.0, 3.0], np.float32)}
    seen = jax.vmap(adapter.function, (0, None))(stacked, x)
    np.testing.assert_allclose(seen, stacked["w"][:, None, None] * x)


# Gradients and cost ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "shape", "hint"),
    [
        (image_space(12, 12), (1, 3, 12, 12), None),
        (image_space(12, 12), ("b", 1, 8, 17), InputHint(value_range=(-2, 3))),
        (image_space(12, 12, 1), (3, 16, 16, 3), None),
        (signal_space(200), ("b", 128, 1), None),
        (generic_space((5, 6)), ("b", 30), None),
    ],
)
def test_gradients_through_the_adapter_match_finite_differences(space, shape, hint):
    adapter = adapt(model(spec(shape), apply=lambda p, x: jnp.sin(flat(p, x))), space, hint)
    assert adapter.has_gradients
    rng = np.random.default_rng(1)
    x, direction = probes(space, 4), rng.standard_normal((4, *space.shape)).astype(np.float32)
    weights = rng.standard_normal((4, adapter.n_components)).astype(np.float32)

    gradient = jax.jit(jax.grad(lambda z: jnp.sum(adapter.function(adapter.params, z) * weights)))(x)
    step = 5e-3
    ahead, behind = (adapter.react(x + np.float32(s) * direction).astype(np.float64) for s in (step, -step))
    slope = np.sum((ahead - behind) * weights) / (2 * step)
    scale = float(np.linalg.norm(gradient) * np.linalg.norm(direction))
    assert float(np.vdot(gradient, direction)) == pytest.approx(slope, abs=1e-4 * scale)
    assert np.linalg.norm(gradient) > 0.1


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_integer_inputs_have_no_gradients(dtype):
    a_model = model(spec((1, 8, 8, 3), dtype)) if dtype == "uint8" else model(spec((1, 9), dtype))
    adapter = adapt(a_model)
    assert not adapter.has_gradients
    assert adapter.flops(1, gradient=True) is None
    assert adapter.flops(1) is not None


def test_cost_is_that_of_the_products_and_grows_with_the_probes():
    a_model = model(spec(("b", 100)), apply=lambda p, x: x @ jnp.full((100, 50), p["w"]) @ jnp.ones((50, 20)))
    adapter = adapt(a_model, generic_space((100,)))
    products = 2 * (100 * 50 + 50 * 20)
    assert adapter.flops(1) == pytest.approx(products, rel=0.6)
    assert adapter.flops(64) == 64 * adapter.flops(1)
    assert adapter.flops(1, gradient=True) == 2 * adapter.flops(1)
