"""Adversaries' similarity and forged claims on known reactions; `test_small_zoo` runs the whole command."""

import numpy as np
import pytest

from bench.modelreuse import adversary
from bench.modelreuse.forgery import ALPHA, METHODS, accusation_rates
from bench.modelreuse.likeness import likeness
from modeldiff_jax.evidence.representations import REPRESENTATIONS

RNG = np.random.default_rng(0)
ONE, OTHER, *UNRELATED = RNG.normal(size=(6, 2, 12, 5)).astype(np.float32)


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_repelled_similarity_is_that_of_the_evidence():
    wanted = []
    for representation in REPRESENTATIONS.values():
        one, other, *rest = (representation.vector(*reactions) for reactions in (ONE, OTHER, *UNRELATED))
        common = np.mean(rest, axis=0)
        wanted.append(cosine(one - common, other - common))
    np.testing.assert_allclose(likeness("evidence", ONE, OTHER, np.stack(UNRELATED)), wanted, atol=1e-4)


@pytest.mark.parametrize("term", ["ddv", "evidence"])
def test_a_model_has_similarity_1_with_itself(term):
    np.testing.assert_allclose(likeness(term, ONE, ONE, np.stack(UNRELATED)), 1, atol=1e-5)


def test_many_keys_accuse_innocent_models_unless_corrected_for():
    unrelated, relatives = RNG.normal(size=(32, 60)), RNG.normal(4, 1, size=(32, 200))
    rates = accusation_rates(unrelated, relatives)
    innocent = {how: pair[0] for how, pair in rates.items()}
    assert innocent.pop("best") > 0.5
    assert all(share <= ALPHA for share in innocent.values()), innocent
    assert rates["mean"][1] == rates["same"][1] == 1.0
    assert rates["bonferroni"][1] == 0.0  # 60 references are too few for 32 keys
    assert all(share == rates["one"] for share in accusation_rates(unrelated[:1], relatives[:1]).values())


def test_table_and_plot_hold_every_curve():
    def copied(term, who, weight):
        row = {"victim": "v", "term": term, "knows": who, "weight": weight, "accuracy": 0.8 - 0.1 * weight}
        return row | {method: {"score": 1.0, "above": 1.0 - weight / 2, "p": 0.01} for method in METHODS}

    result = {
        "victims": ["v"],
        "scratch": {"v": 0.7},
        "thieves": [copied("none", "own", 0.0)]
        + [copied(t, who, w) for t in ("ddv", "evidence") for who in adversary.KNOWLEDGE for w in (0.5, 1.0)],
        "claims": [{"how": "honest", "method": method, "p": 0.5, "accepted": True} for method in METHODS],
        "keys": [{"method": m, "keys": 1, "how": "one", "innocent": 0.04, "derived": 0.9} for m in METHODS],
        "seconds": 1.0,
    }
    text, drawn = adversary.table(result), adversary.plot(result)
    assert text.count("leaked") == 4 + 2
    assert text.count("none") == 1 + 4 * len(METHODS)  # a copy that repels nothing, and no copy that escapes
    assert "0.040 | 0.900" in text
    assert "0/1" in text
    assert "1/1" in text
    assert drawn.count("<polyline") == 2 * 5
    assert drawn.count("<circle") == 2 * 4 * 3  # the line of alpha has none
