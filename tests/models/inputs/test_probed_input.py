"""The input of a model that is probed, its kind and layout, and the values of the other inputs."""

import json

import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import modeldiff_jax as md
from modeldiff_jax.errors import InvalidInputError, NotAdaptableError
from modeldiff_jax.models.inputs.probed_input import InputHint, probed_input
from modeldiff_jax.models.inputs.space import ProbeSpace, generic_space, image_space, signal_space, token_space
from tests.helpers.jax_models import model, spec

SPACES = [image_space(8, 9), image_space(8, 9, 1), signal_space(4), token_space(7, 100), generic_space((2, 3), -4, 9)]


@pytest.mark.parametrize(
    ("shape", "dtype", "layout", "expected"),
    [
        ((1, 3, 32, 48), "float32", "NCHW", image_space(32, 48, 3)),
        (("b", 1, 28, 28), "float32", "NCHW", image_space(28, 28, 1)),
        (("b", 4, 84, 84), "float32", "NCHW", image_space(84, 84, 4)),
        (("b", 32, 48, 3), "float32", "NHWC", image_space(32, 48, 3)),
        ((8, 28, 28, 1), "float32", "NHWC", image_space(28, 28, 1)),
        (("b", 32, 32, 3), "float16", "NHWC", image_space(32, 32, 3)),
        (("b", 64, 64, 3), "uint8", "NHWC", image_space(64, 64, 3)),
        ((1, 1, 9, 3), "float32", "N*", generic_space((1, 9, 3))),  # too narrow for an image either way
        ((1, 3, 9, 3), "float32", "N*", generic_space((3, 9, 3))),
        ((1, 3, 16, 16, 16), "float32", "N*", generic_space((3, 16, 16, 16))),
        (("b", 16, 32, 32), "float32", "N*", generic_space((16, 32, 32))),
        (("b", 512), "float32", "NT", signal_space(512)),
        (("b", 512, 1), "float32", "NTC", signal_space(512)),
        (("b", 1, 512), "float32", "NCT", signal_space(512)),
        (("b", 20), "float32", "N*", generic_space((20,))),
        (("b", 80, 3000), "float32", "N*", generic_space((80, 3000))),
        (("b", 40), "int32", "N*", token_space(40)),
        (("b", 40), "int64", "N*", token_space(40)),
        (("b", 40), "int8", "N*", token_space(40, 128)),
        (("b", 5, 6), "uint8", "N*", token_space(30)),
    ],
)
def test_space_follows_the_declared_input(shape, dtype, layout, expected):
    result = probed_input(model(spec(shape, dtype)))
    assert result.space == expected
    assert result.layout == layout


@pytest.mark.parametrize("size", [1, 2, 5])
def test_three_channels_win_over_one_and_channels_first_over_last(size):
    assert probed_input(model(spec((size, 3, 8, 8)))).layout == "NCHW"
    assert probed_input(model(spec((size, 1, 8, 3)))).space.kind == "generic"
    assert probed_input(model(spec((size, 1, 8, 8, 3)[1:] if size == 1 else (size, 8, 8, 3)))).layout == "NHWC"


def test_dynamic_sizes_become_sizes_the_model_runs_at():
    def lines(params, x):
        if x.shape[2] != 48:
            raise TypeError("text lines are 48 high")
        return x.mean((1, 2, 3))

    result = probed_input(model(spec(("b", 3, "h", "w")), apply=lines))
    assert result.space == image_space(48, result.space.shape[1])


def test_a_dynamic_width_is_not_taken_for_channels():
    assert probed_input(model(spec(("b", 3, 48, "w")))).space.kind == "image"
    assert probed_input(model(spec(("b", 48, "w", 3)))).space.kind == "image"


def test_sizes_of_the_hint_win():
    hint = InputHint(sizes={"w": 40})
    assert probed_input(model(spec(("b", 3, 48, "w"))), hint).space == image_space(48, 40)


def _recurrent(*inputs, outputs=("y", "stateN")):
    names = [s.name for s in inputs]
    out = tuple(spec((1,), name=name) for name in outputs)
    return model(*inputs, outputs=out, apply=lambda params, *x: jnp.sum(x[names.index("main")]).reshape(1, 1))


@pytest.mark.parametrize(
    "state",
    [
        spec((2, 1, 128), name="state"),
        spec((2, "b", 9999), name="h"),
        spec((1, 1, 9999), name="hidden_state"),
        spec((1, 9999), name="memory_in"),  # by the output `memory_out`
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_recurrent_state_is_never_probed_and_starts_at_zero(state, first):
    main = spec((1, 256), name="main")
    inputs = (state, main) if first else (main, state)
    result = probed_input(_recurrent(*inputs, outputs=("y", "memory_out")))
    assert result.model.inputs[result.index].name == "main"
    assert result.space == signal_space(256)
    assert list(result.others) == [state.name]
    assert not result.others[state.name].any()
    assert f"`{state.name}` zeros" in result.notes[0]


def test_a_sampling_rate_is_bound():
    result = probed_input(_recurrent(spec(("b", "t"), name="main"), spec((), "int64", "sr")))
    assert result.model.input_names == ("main",)
    assert result.notes == ("input `sr` fixed to 16000",)


def test_tokens_with_mask_types_and_positions():
    names = ("token_type_ids", "input_ids", "attention_mask", "position_ids")
    text = model(*(spec(("b", 6), "int64", name) for name in names))
    result = probed_input(text)
    assert result.model.inputs[result.index].name == "input_ids"
    assert (result.others["attention_mask"] == 1).all()
    assert (result.others["token_type_ids"] == 0).all()
    np.testing.assert_array_equal(result.others["position_ids"], [[0, 1, 2, 3, 4, 5]])


def test_lengths_are_asked_for_rather_than_guessed():
    audio = model(spec((1, 256)), spec((1,), "int64", "x_lengths"))
    with pytest.raises(NotAdaptableError, match="x_lengths"):
        probed_input(audio)
    result = probed_input(audio, InputHint(fixed={"x_lengths": [256]}))
    assert result.space == signal_space(256)


def test_the_largest_input_of_known_kind_is_probed_unless_the_hint_names_another():
    several = model(
        spec((1, 9999, 2), name="boxes"), spec((1, 3, 16, 16), name="small"), spec((1, 3, 32, 32), name="large")
    )
    assert probed_input(several).space == image_space(32, 32)
    assert probed_input(several, InputHint(name="small")).space == image_space(16, 16)
    assert probed_input(several, InputHint(name="boxes")).space == generic_space((9999, 2))


@pytest.mark.parametrize(
    ("shape", "dtype", "hint", "expected"),
    [
        ((1, 3, 16, 3), "float32", InputHint(layout="NCHW"), image_space(16, 3)),
        ((1, 28, 28), "float32", InputHint(layout="NHW"), image_space(28, 28, 1)),
        ((28, 28), "float32", InputHint(layout="HW"), image_space(28, 28, 1)),
        ((3, 28, 28), "float32", InputHint(layout="CHW"), image_space(28, 28, 3)),
        ((1, 20), "float32", InputHint(layout="NT"), signal_space(20)),
        ((1, 20), "float32", InputHint(kind="signal"), signal_space(20)),
        ((1, 512), "float32", InputHint(kind="generic"), generic_space((512,))),
        ((1, 512), "float32", InputHint(kind="generic", value_range=(0, 9)), generic_space((512,), 0, 9)),
        (
            (1, 3, 32, 32),
            "float32",
            InputHint(value_range=(0, 255)),
            image_space(32, 32),
        ),  # the model's range, not ours
        ((1, 40), "int32", InputHint(value_range=(0, 999)), token_space(40, 1000)),
    ],
)
def test_the_hint_overrides(shape, dtype, hint, expected):
    assert probed_input(model(spec(shape, dtype)), hint).space == expected


@pytest.mark.parametrize(
    "hint",
    [
        InputHint(name="missing"),
        InputHint(fixed={"missing": 1}),
        InputHint(layout="NCHWX"),
        InputHint(layout="NHWC"),  # 33 channels
        InputHint(layout="CNHW"),
        InputHint(kind="tokens"),
        InputHint(kind="signal"),
        InputHint(value_range=(1, 1)),
        InputHint(value_range=(0, float("nan"))),
    ],
)
def test_a_hint_that_does_not_fit_says_so(hint):
    with pytest.raises(NotAdaptableError, match="x: float32"):
        probed_input(model(spec((1, 3, 32, 33))), hint)


def test_a_fixed_batch_is_distinguished_from_a_sample_without_batch():
    assert probed_input(model(spec((4, 20)))).space == generic_space((20,))
    lone = model(spec((4, 20)), apply=lambda params, x: x.sum(1).reshape(2, 2))
    assert probed_input(lone).space == generic_space((4, 20))


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_dict_round_trip(space):
    assert ProbeSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "video"},
        {"shape": [8, 8]},
        {"shape": [8, 8, 2]},
        {"shape": [0, 8, 3]},
        {"shape": ["8", 8, 3]},
        {"shape": None},
        {"dtype": "float64"},
        {"low": 1.0},
        {"high": float("inf")},
        {"extra": 1},
    ],
)
def test_an_unsound_space_is_refused(change):
    with pytest.raises(InvalidInputError):
        ProbeSpace.from_dict({**image_space(8, 8).to_dict(), **change})


def test_tokens_stay_within_the_embedding_table_they_index(tmp_path):
    weights = {"table": np.ones((50, 8), np.float32), "w": np.ones((8, 7), np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["x"]),
            helper.make_node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=0),
            helper.make_node("MatMul", ["m", "w"], ["y"]),
        ],
        "embedding",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["b", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 7])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    file = tmp_path / "embedding.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file)
    assert probed_input(md.load(file)).space == token_space(16, 50)
