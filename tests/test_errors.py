"""Errors: four parts of bounded length, whatever a model's names are."""

import pickle

import pytest

from modeldiff_jax import errors
from modeldiff_jax.errors import LONGEST_PART, InvalidInputError, ModelDiffError, shortened
from modeldiff_jax.models.load import load
from tests.helpers.onnx_graphs import model, node

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ModelDiffError)]


def test_the_message_holds_the_parts_given():
    assert str(ModelDiffError("A rule holds", got="1", fix="do it")) == "A rule holds. Got: 1. To do: do it."
    assert str(ModelDiffError("A rule holds", where="here")) == "A rule holds. Where: here."


@pytest.mark.parametrize("part", ["rule", "got", "where", "fix"])
def test_long_parts_keep_their_ends_and_count_the_rest(part):
    text = "start" + "x" * 10**7 + "end"
    error = InvalidInputError(**{"rule": "A rule", part: text})
    short = getattr(error, part)
    assert len(short) <= LONGEST_PART
    assert short.startswith("start")
    assert short.endswith("end")
    assert "9,999,0" in short
    assert len(str(error)) < LONGEST_PART + 100
    assert getattr(InvalidInputError(**{"rule": "A rule", part: short}), part) == short


@pytest.mark.parametrize("length", [0, 1, 99, 100])
def test_short_texts_stay(length):
    assert shortened("x" * length, 100) == "x" * length


@pytest.mark.parametrize("length", [101, 150, 10**6])
def test_long_texts_do_not_exceed_the_limit(length):
    assert len(shortened("x" * length, 100)) <= 100


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive_pickling(kind):
    error = kind("A rule holds", got="1", where="here", fix="do it")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert (again.rule, again.got, again.where, again.fix) == (error.rule, error.got, error.where, error.fix)


@pytest.mark.parametrize("place", ["operator", "input of a node", "name of a node", "file"])
def test_names_of_a_model_may_be_of_any_length(tmp_path, place):
    name = "n" * 10**6
    nodes = {
        "operator": [node(name, "x", "y")],
        "input of a node": [node("Relu", name, "y")],
        "name of a node": [node("NoSuchOperator", "x", "y", name=name)],
        "file": [node("Relu", "gone", "y")],
    }[place]
    path = tmp_path / ("m" * 200 if place == "file" else "m")
    path.write_bytes(model(nodes).SerializeToString())
    with pytest.raises(ModelDiffError) as caught:
        load(path)
    assert len(str(caught.value)) < 5 * LONGEST_PART
