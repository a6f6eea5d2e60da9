"""Sizes for dynamic dimensions: by role, by trial, by what the caller knows."""

import jax.numpy as jnp
import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError, NotStaticError, UnsupportedModelError
from modeldiff_jax.models.inputs.roles import is_state, main_input
from modeldiff_jax.models.inputs.sizes import resolve
from modeldiff_jax.models.model import Model, Origin
from modeldiff_jax.types import ANY, TensorSpec

FLOAT, INT = np.dtype(np.float32), np.dtype(np.int64)


def spec(name, *shape, dtype=FLOAT):
    return TensorSpec(name, shape, dtype)


def model(*inputs, apply=None, traceable=True):
    """A model that accepts everything, or what `apply(*inputs)` accepts."""
    function = apply or (lambda *xs: jnp.sum(jnp.stack([jnp.sum(x) for x in xs])))
    return Model(lambda _, *xs: function(*xs), {}, inputs, (spec("y"),), Origin("m", "callable"), traceable)


def test_fixed_shapes_stay():
    resolved = resolve(model(spec("x", 1, 3, 224, 224)), batch=7)
    assert resolved.shapes == {"x": (1, 3, 224, 224)}
    assert resolved.batch_axes == {"x": None}


@pytest.mark.parametrize("name", ["batch", "N", "unk__17", ANY])
def test_a_dynamic_axis_0_is_the_batch(name):
    resolved = resolve(model(spec("x", name, 8)), batch=5)
    assert resolved.shapes == {"x": (5, 8)}
    assert resolved.batch_axes == {"x": 0}


@pytest.mark.parametrize(
    ("shape", "channels_at"),
    [(("b", 3, ANY, ANY), 1), (("b", 1, "h", "w"), 1), (("b", ANY, ANY, 3), 3), (("b", ANY, ANY, ANY), 1)],
)
def test_pictures_get_a_usual_size(shape, channels_at):
    result = resolve(model(spec("x", *shape))).shapes["x"]
    assert result[0] == 1
    assert result[channels_at] in (1, 3)
    assert min(n for i, n in enumerate(result) if i not in (0, channels_at)) >= 16


def test_one_open_side_follows_the_fixed_one():
    assert resolve(model(spec("x", "b", 3, 48, "w"))).shapes["x"] == (1, 3, 48, 192)


@pytest.mark.parametrize("wanted", [(64, 64), (48, 320), (299, 299), (28, 28), (640, 640)])
def test_sizes_are_tried_until_one_traces(wanted):
    def apply(x):
        assert x.shape[2:] == wanted
        return x

    assert resolve(model(spec("x", "b", 3, "h", "w"), apply=apply)).shapes["x"] == (1, 3, *wanted)


@pytest.mark.parametrize("wanted", [576, 512, 256, 16000])
def test_sound(wanted):
    def apply(x):
        return x.reshape(1, wanted)

    assert resolve(model(spec("x", "b", "time"), apply=apply)).shapes["x"] == (1, wanted)


def test_a_single_axis_is_a_length():
    assert resolve(model(spec("wave", "n"))).shapes["wave"][0] > 1
    assert resolve(model(spec("wave", "batch")), batch=3).shapes["wave"] == (3,)


def test_tokens_share_a_named_length():
    inputs = [spec(name, "batch", "sequence", dtype=INT) for name in ("input_ids", "attention_mask")]
    shapes = resolve(model(*inputs), batch=2).shapes
    assert shapes["input_ids"] == shapes["attention_mask"]
    assert shapes["input_ids"][0] == 2


def test_recurrent_state_takes_the_batch_wherever_it_stands():
    def apply(x, state):
        return x[:, 0] + state[0, :, 0]

    resolved = resolve(model(spec("x", ANY, 512), spec("state", 2, ANY, 128), apply=apply), batch=3)
    assert resolved.shapes == {"x": (3, 512), "state": (2, 3, 128)}
    assert resolved.batch_axes == {"x": 0, "state": 1}


def test_a_sampling_rate_is_bound():
    def apply(x, rate):
        return x[: int(rate)]

    resolved = resolve(model(spec("x", 32000), spec("sr", dtype=INT), apply=apply))
    assert list(resolved.bound) == ["sr"]
    assert resolved.bound["sr"] == 16000
    assert resolved.model.input_names == ("x",)
    assert [s.shape for s in resolved.structs()] == [(32000,)]


def test_a_scalar_that_decides_and_is_not_known_is_asked_for():
    def apply(x, mode):
        raise NotStaticError("This input must be known while tracing", fix="model.bind(mode=value)")

    with pytest.raises(NotStaticError, match="bind"):
        resolve(model(spec("x", "b", "t"), spec("mode", dtype=INT), apply=apply))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"h": 40, "w": 56}, (1, 3, 40, 56)),
        ({"x": (2, 3, 40, 56)}, (2, 3, 40, 56)),
        ({"w": 48, "h": 48}, (1, 3, 48, 48)),
        ({"b": 9, "h": 40, "w": 40}, (9, 3, 40, 40)),
    ],
)
def test_known_sizes_are_taken(sizes, expected):
    assert resolve(model(spec("x", "b", 3, "h", "w")), sizes=sizes).shapes["x"] == expected


@pytest.mark.parametrize("sizes", [{"q": 3}, {"x": 3}, {"x": (1, 3, 40)}, {"x": (1, 4, 40, 40)}, {"h": (3, 4)}])
def test_sizes_that_fit_nothing_are_refused(sizes):
    with pytest.raises(InvalidInputError, match="A size names"):
        resolve(model(spec("x", "b", 3, "h", "w")), sizes=sizes)


def test_when_nothing_works_the_first_refusal_is_reported():
    def apply(x):
        raise ValueError("I never work")

    with pytest.raises(InvalidInputError, match=r"I never work.*pass sizes for x: float32\[b, 3, h, w\]"):
        resolve(model(spec("x", "b", 3, "h", "w"), apply=apply))


def test_a_model_of_fixed_shape_that_fails_says_its_own_error():
    def apply(x):
        raise ValueError("I never work")

    with pytest.raises(InvalidInputError, match=r"A model must accept its inputs.*I never work"):
        resolve(model(spec("x", 1, 3), apply=apply))


def test_sizes_that_leave_nothing_of_the_output_are_not_taken():
    def apply(x):
        return x[:, 96:]

    assert resolve(model(spec("x", "b", "h", "w", 3), apply=apply)).shapes["x"][1] > 96


def test_a_black_box_is_never_called():
    def apply(x):
        raise AssertionError("called")

    assert resolve(model(spec("x", "b", 3, "h", "w"), apply=apply, traceable=False)).shapes["x"] == (1, 3, 96, 96)


def test_strings_are_refused():
    with pytest.raises(UnsupportedModelError, match="numbers"):
        resolve(model(spec("x", "b", dtype=np.dtype(object))))


def test_a_model_without_inputs():
    assert resolve(model(apply=lambda: jnp.ones(3))).shapes == {}
    with pytest.raises(InvalidInputError, match="must have an input"):
        main_input(model())


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("h", True),
        ("c", True),
        ("h0", True),
        ("state", True),
        ("hidden_state_1", True),
        ("lstm_cell", True),
        ("past_key_values.0.key", True),
        ("x", False),
        ("channels", False),
        ("input", False),
        ("statement", False),
        ("cached_image_path", False),
    ],
)
def test_state_by_name(name, state):
    assert is_state(spec(name, 1, 2)) == state


def test_the_main_input_is_the_first_with_data():
    inputs = [spec("sr", dtype=INT), spec("state", 2, 1, 8), spec("audio", 1, 512), spec("mask", 1, 512)]
    assert main_input(model(*inputs)).name == "audio"
    assert main_input(model(spec("state", 2, 1, 8))).name == "state"
