"""P-values of models made of random features: unrelated ones are called reused no more often than stated."""

from types import SimpleNamespace

import numpy as np
import pytest

from bench.modelreuse import reliability
from bench.modelreuse.default_calibration import held_against, pack
from bench.modelreuse.folder import Entry
from modeldiff_jax.errors import InvalidInputError

N, CLASSES = 30, 6


class Strangers:
    """Stands for a `Study` of models that share nothing, but for one child of each of the first two."""

    key = 0
    zoo = SimpleNamespace(folder="strangers")

    def __init__(self, count=46):
        rng = np.random.default_rng(0)
        self.x, self.partners = rng.normal(size=(2, N, 8))
        self.entries = {
            f"m{i}": Entry(f"m{i}", "", "net", "task", f"m{i}", None, "train", CLASSES) for i in range(count)
        }
        self.weights = {name: (rng.normal(size=(8, 20)), rng.normal(size=(20, CLASSES))) for name in self.entries}
        for parent in ("m0", "m1"):
            self.entries[f"{parent}c"] = Entry(f"{parent}c", "", "net", "task", parent, parent, "prune", CLASSES)
            self.weights[f"{parent}c"] = tuple(w + 0.05 * rng.normal(size=w.shape) for w in self.weights[parent])
        self.names, self.store = list(self.entries), {}

    def entry(self, name):
        return self.entries[name]

    def prober(self, name):
        return name

    def on_pairs(self, prober, names):
        return [
            {n: np.tanh(x @ self.weights[n][0]) @ self.weights[n][1] for n in names} for x in (self.x, self.partners)
        ]

    def kept(self, make, *what):
        if what not in self.store:
            self.store[what] = make()
        return self.store[what]

    def forget(self, *what):
        self.store.pop(what, None)


@pytest.fixture(scope="module")
def found():
    return reliability.reliability(Strangers(), n_pairs=200, n_references=19)


def test_unrelated_pairs_are_called_reused_no_more_often_than_stated(found):
    rates = found["unrelated"]
    assert found["pairs"] >= 200
    assert found["owners"] == len(Strangers().names)
    for alpha in reliability.ALPHAS:
        assert rates[str(alpha)]["verdict"] <= alpha + 3 * np.sqrt(alpha / found["pairs"])
    assert rates["0.01"]["rank"] == 0  # nineteen references cannot reach it by rank
    assert np.mean(found["p_values"]) == pytest.approx(0.5, abs=0.1)


def test_children_are_found_further_down_than_ranks_reach(found):
    rates = found["kinds"]["prune"]
    assert rates["pairs"] == 2
    assert [rates[str(alpha)]["verdict"] for alpha in reliability.ALPHAS] == [1, 1, 1]
    assert [rates[str(alpha)]["rank"] for alpha in reliability.ALPHAS] == [0, 0, 1]


def test_owners_are_drawn(found):
    assert reliability.reliability(Strangers(), n_pairs=20, n_references=19, n_owners=4)["owners"] == 4


def test_too_few_references_are_refused():
    with pytest.raises(InvalidInputError, match="too few"):
        reliability.reliability(Strangers(10), n_pairs=20)


def test_the_default_calibration_is_held_against_pairs_by_their_kind():
    entries = list(Strangers(12).entries.values())
    rng = np.random.default_rng(0)
    pairs = [
        (a, b, 0.99 if b.parent == a.name else rng.uniform(0, 0.9)) for a in entries for b in entries if a is not b
    ]
    made = pack(pairs, {"zoos": ["strangers"]})
    assert made["similarities"]["other_label_space"] == []
    rates = held_against(pairs, made)
    assert rates["prune"]["0.05"] == 1
    assert rates["unrelated, same labels"]["0.05"] == pytest.approx(0.05, abs=0.01)


def test_the_plot_shows_what_was_observed_beside_what_is_stated(found):
    drawn = reliability.plot(found)
    assert drawn.count("<polyline") == 4
    assert "0.0" in reliability.table(found)
