"""Scores of trees of descent, for answers whose scores are known."""

import numpy as np
import pytest

from bench.modelreuse import lineage, recipes
from modeldiff_jax.evidence.descent import Descent

from .test_recipes import zoo_of

ZOO = zoo_of([*recipes.paper(), *recipes.beyond()])


class Judged:
    """What scoring needs of a study."""

    key = 0
    zoo = ZOO


def forest(parents):
    parents, m = np.array(parents), len(parents)
    return Descent(parents, np.ones(m), 1.0 * (np.arange(m)[:, None] == parents))


def knows(study, names):
    return forest(lineage.truth(study.zoo, names))


def nothing(study, names):
    return forest([-1] * len(names))


@pytest.mark.parametrize("how", ["random", "families", "whole"])
def test_who_knows_is_right_and_who_says_nothing_has_the_roots_right(monkeypatch, how):
    monkeypatch.setattr(lineage, "METHODS", {"knows": knows, "nothing": nothing})
    told = lineage.lineage(Judged(), "knows", n_sets=5)[how]
    assert told["right"] == told["parent"] == told["first"] == told["direction"] == told["root"] == 1
    assert told["brier"] == 0
    silent = lineage.lineage(Judged(), "nothing", n_sets=5)[how]
    assert (silent["parent"], silent["root"]) == (0, 1)
    assert silent["right"] == pytest.approx(silent["nobody"]) == told["nobody"]
    assert silent["brier"] == pytest.approx(1 - silent["right"])  # it was sure
    assert silent["family"] is silent["direction"] is None


def test_the_nearest_ancestor_present_is_the_true_one():
    names = list(ZOO.entries)
    child = next(n for n in names if (p := ZOO.entries[n].parent) and ZOO.entries[p].parent)
    parent = ZOO.entries[child].parent
    grandparent = ZOO.entries[parent].parent
    assert list(lineage.truth(ZOO, [grandparent, child, parent])) == [-1, 2, 0]
    assert list(lineage.truth(ZOO, [child, grandparent])) == [1, -1]
    assert list(lineage.truth(ZOO, [child])) == [-1]


def test_families_hold_all_ancestors_up_to_their_size():
    rng = np.random.default_rng(0)
    for _ in range(20):
        names = lineage.drawn(ZOO, "families", 10, rng)
        assert len(set(names)) == 10
        assert all(ZOO.entries[name].parent in {None, *names} for name in names)


def test_a_turned_edge_is_right_only_without_direction_and_a_sibling_is_neither():
    root = next(name for name in ZOO.entries if ZOO.entries[name].kind == "pretrain")
    one, two = [name for name in ZOO.entries if ZOO.entries[name].parent == root][:2]
    rows = lineage.judged(ZOO, [root, one, two], forest([1, -1, 1]))
    assert [row["right"] for row in rows] == [False, False, False]
    assert [row["edge"] for row in rows] == [False, True, False]
    assert [row["sibling"] for row in rows] == [False, False, True]
    found = lineage.scores(rows)
    assert (found["not_sibling"], found["direction"], found["family"]) == (0, 0, 1)


def test_support_is_worth_what_happens():
    always = {"child": True, "said": True, "sibling": False, "same_root": True}
    rows = [
        always | {"support": support, "right": right, "first": right, "edge": right}
        for support, rights in ((0.8, [1, 1, 1, 1, 0]), (0.3, [0, 1]))
        for right in rights
    ]
    found = lineage.scores(rows)
    assert found["brier"] == pytest.approx((4 * 0.04 + 0.64 + 0.09 + 0.49) / 7)
    assert found["brier_constant"] == pytest.approx(5 / 7 * 2 / 7)
    assert [each["models"] for each in found["bins"]] == [2, 0, 5, 0]
    assert found["bins"][2]["support"] == pytest.approx(found["bins"][2]["right"]) == 0.8
    assert found["bins"][1]["right"] is None


def test_the_table_has_a_line_for_each_kind_and_each_range_of_support(monkeypatch):
    monkeypatch.setattr(lineage, "METHODS", {"knows": knows})
    text = lineage.table(lineage.lineage(Judged(), "knows", n_sets=2))
    for how in lineage.SETS:
        assert f"{how}, 0.9 and above" in text
    assert "steal_label" in text
