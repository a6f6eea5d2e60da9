"""P-values of models made of random features: unrelated ones are called reused no more often than stated."""

from types import SimpleNamespace

import numpy as np
import pytest

from bench.modelreuse import reliability
from bench.modelreuse.default_calibration import calibration_rates, pack
from bench.modelreuse.folder import Entry
from modeldiff_jax.errors import InvalidInputError

N, CLASSES = 30, 6


class UnrelatedModels:
    """A substitute for a `Study`: models that share nothing, but for one child of each of the first two."""

    key = 0
    zoo = SimpleNamespace(folder="unrelated")

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

    def cached(self, compute, *key):
        if key not in self.store:
            self.store[key] = compute()
        return self.store[key]

    def forget(self, *key):
        self.store.pop(key, None)


@pytest.fixture(scope="module")
def result():
    return reliability.reliability(UnrelatedModels(), n_pairs=200, n_references=19)


def test_unrelated_pairs_are_called_reused_no_more_often_than_stated(result):
    rates = result["unrelated"]
    assert result["pairs"] >= 200
    assert result["owners"] == len(UnrelatedModels().names)
    for alpha in reliability.ALPHAS:
        assert rates[str(alpha)]["verdict"] <= alpha + 3 * np.sqrt(alpha / result["pairs"])
    assert rates["0.01"]["rank"] == 0  # nineteen references cannot reach it by rank
    assert np.mean(result["p_values"]) == pytest.approx(0.5, abs=0.1)


def test_children_are_detected_at_rates_below_the_least_rank(result):
    rates = result["kinds"]["prune"]
    assert rates["pairs"] == 2
    assert [rates[str(alpha)]["verdict"] for alpha in reliability.ALPHAS] == [1, 1, 1]
    assert [rates[str(alpha)]["rank"] for alpha in reliability.ALPHAS] == [0, 0, 1]


def test_owners_are_drawn(result):
    assert reliability.reliability(UnrelatedModels(), n_pairs=20, n_references=19, n_owners=4)["owners"] == 4


def test_too_few_references_are_refused():
    with pytest.raises(InvalidInputError, match="too few"):
        reliability.reliability(UnrelatedModels(10), n_pairs=20)


def test_the_default_calibration_is_tested_on_pairs_by_their_kind():
    entries = list(UnrelatedModels(12).entries.values())
    rng = np.random.default_rng(0)
    pairs = [
        (a, b, 0.99 if b.parent == a.name else rng.uniform(0, 0.9)) for a in entries for b in entries if a is not b
    ]
    calibration = pack(pairs, {"zoos": ["unrelated"]})
    assert calibration["similarities"]["other_label_space"] == []
    rates = calibration_rates(pairs, calibration)
    assert rates["prune"]["0.05"] == 1
    assert rates["unrelated, same labels"]["0.05"] == pytest.approx(0.05, abs=0.01)


def test_the_plot_shows_observed_and_stated_rates(result):
    drawn = reliability.plot(result)
    assert drawn.count("<polyline") == 4
    assert "0.0" in reliability.table(result)
