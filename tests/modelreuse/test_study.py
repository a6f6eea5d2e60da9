"""What a study shows of models, and what it asks them."""

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


def test_access_takes_away_what_is_not_told(reactor):
    whole, seen = (study(reactor, access=access).on_pairs("a", ["a"]) for access in ("outputs", "labels"))
    for logits, labels in zip(whole, seen, strict=True):
        np.testing.assert_array_equal(labels["a"], np.eye(5)[logits["a"].argmax(axis=1)])


def test_under_another_access_models_answer_no_second_time(reactor, monkeypatch):
    whole = study(reactor)
    answers = whole.on_pairs("a", ["a"])
    monkeypatch.setattr(reactor, "logits", None)
    monkeypatch.setattr(reactor, "attack", None)
    seen = whole.through("labels").on_pairs("a", ["a"])
    for logits, labels in zip(answers, seen, strict=True):
        np.testing.assert_array_equal(labels["a"], np.eye(5)[logits["a"].argmax(axis=1)])
    assert whole.on_pairs("a", ["a"])[0]["a"] is answers[0]["a"]


def test_a_black_box_is_asked_and_the_questions_counted(reactor):
    asked = study(reactor, black_box=True)
    partners = asked.partners("a")
    assert partners.shape == (N, 16)
    assert not np.array_equal(partners, asked.seeds("d"))
    assert N < asked.queries["a"] <= N * (1 + 2 * ROUNDS)
    assert asked.partners("a") is partners
    assert study(reactor).queries == {}


def test_unknown_access_is_refused(reactor):
    with pytest.raises(InvalidInputError, match="Access"):
        study(reactor, access="logits")
