"""Every registered function has the name of its operator, in tracebacks and profiles as well."""

import inspect
import re
import traceback

import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.graph.registry import registered
from modeldiff_jax.models.onnx import ops
from modeldiff_jax.models.onnx.registration import ONNX

DIALECTS = {ONNX, "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training", "com.microsoft"}
FUNCTIONS = {
    (domain, name, since): result.function
    for (domain, name), versions in registered().items()
    if domain in DIALECTS
    for since, result in versions.items()
}


def plain(name):
    """A name without its version, underscores and capitals."""
    return re.sub(r"_\d+$", "", name).replace("_", "").lower()


def test_every_function_is_named_after_its_operator():
    assert len(FUNCTIONS) > 300
    wrong = {
        key: function.__name__ for key, function in FUNCTIONS.items() if plain(function.__name__) != key[1].lower()
    }
    assert not wrong


def test_the_code_is_named_like_the_function():
    """Frames show the name of the code; decorators hide the decorated function, which is unwrapped here."""
    unwrapped = {key: inspect.unwrap(function) for key, function in FUNCTIONS.items()}
    wrong = {
        key: function.__code__.co_name
        for key, function in unwrapped.items()
        if function.__code__.co_name != function.__name__ or "<locals>" in function.__qualname__
    }
    assert not wrong


@pytest.mark.parametrize(("name", "since", "frame"), [("Add", 7, "Add_7"), ("ReduceSum", 13, "ReduceSum_13")])
def test_tracebacks_tell_operators_apart(name, since, frame):
    function = registered()[ONNX, name][since].function
    with pytest.raises((ValueError, InvalidInputError)) as caught:
        function(np.zeros((2, 3)), np.asarray([7, 8, 9, 10]))
    assert frame in {summary.name for summary in traceback.extract_tb(caught.tb)}
    assert ops.__name__ in function.__module__
