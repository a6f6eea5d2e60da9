"""The outputs that a study exposes, and the queries that it makes."""

import numpy as np
import pytest

from bench.modelreuse.reactions import ROUNDS, Reactor
from bench.modelreuse.study import Study
from modeldiff_jax.errors import InvalidInputError
from tests.helpers.onnx_graphs import classifier

N = 6


class Images:
    """A zoo of one model, in memory."""

    def __init__(self, folder):
        self.folder = folder
        self.entries = {"a": type("E", (), {"kind": "train", "parent": None, "dataset": "d", "classes": 5})()}

    def images(self, dataset, part):
        return np.random.default_rng(0).normal(size=(20, 16)).astype(np.float32), np.arange(20) % 5

    def normalised(self, x):
        return x


@pytest.fixture(scope="module")
def reactor(tmp_path_factory):
    path = tmp_path_factory.mktemp("zoo") / "a.onnx"
    classifier(path)
    return Reactor({"a": path})


def study(reactor, **settings):
    return Study(Images(None), N, reactor=reactor, **settings)


def test_access_removes_hidden_outputs(reactor):
    whole, exposed = (study(reactor, access=access).on_pairs("a", ["a"]) for access in ("outputs", "labels"))
    for logits, labels in zip(whole, exposed, strict=True):
        np.testing.assert_array_equal(labels["a"], np.eye(5)[logits["a"].argmax(axis=1)])


def test_models_are_run_once_for_all_access_levels(reactor, monkeypatch):
    whole = study(reactor)
    outputs = whole.on_pairs("a", ["a"])
    monkeypatch.setattr(reactor, "logits", None)
    monkeypatch.setattr(reactor, "attack", None)
    exposed = whole.with_access("labels").on_pairs("a", ["a"])
    for logits, labels in zip(outputs, exposed, strict=True):
        np.testing.assert_array_equal(labels["a"], np.eye(5)[logits["a"].argmax(axis=1)])
    assert whole.on_pairs("a", ["a"])[0]["a"] is outputs[0]["a"]


def test_queries_to_a_black_box_are_counted(reactor):
    queried = study(reactor, black_box=True)
    partners = queried.partners("a")
    assert partners.shape == (N, 16)
    assert not np.array_equal(partners, queried.seeds("d"))
    assert N < queried.queries["a"] <= N * (1 + 2 * ROUNDS)
    assert queried.partners("a") is partners
    assert study(reactor).queries == {}


def test_unknown_access_is_refused(reactor):
    with pytest.raises(InvalidInputError, match="Access"):
        study(reactor, access="logits")
