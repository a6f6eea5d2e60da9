"""Scores of inferred descent, on forests whose scores are known."""

import numpy as np
import pytest

from bench.modelreuse import lineage, recipes
from modeldiff_jax.evidence.descent import Descent

from .test_recipes import zoo_of

ZOO = zoo_of([*recipes.paper(), *recipes.beyond()])


class ScoredStudy:
    """The part of a study that scoring needs."""

    key = 0
    zoo = ZOO


def forest(parents):
    parents, m = np.array(parents), len(parents)
    return Descent(parents, np.ones(m), 1.0 * (np.arange(m)[:, None] == parents))


def true_forest(study, names):
    return forest(lineage.truth(study.zoo, names))


def all_roots(study, names):
    return forest([-1] * len(names))


@pytest.mark.parametrize("how", ["random", "families", "whole"])
def test_the_true_forest_is_right_and_a_forest_of_roots_only_on_roots(monkeypatch, how):
    monkeypatch.setattr(lineage, "METHODS", {"true": true_forest, "all_roots": all_roots})
    right = lineage.lineage(ScoredStudy(), "true", n_sets=5)[how]
    assert right["right"] == right["parent"] == right["first"] == right["direction"] == right["root"] == 1
    assert right["brier"] == 0
    roots = lineage.lineage(ScoredStudy(), "all_roots", n_sets=5)[how]
    assert (roots["parent"], roots["root"]) == (0, 1)
    assert roots["right"] == pytest.approx(roots["all_roots"]) == right["all_roots"]
    assert roots["brier"] == pytest.approx(1 - roots["right"])  # its support is 1
    assert roots["family"] is roots["direction"] is None


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
        names = lineage.draw_names(ZOO, "families", 10, rng)
        assert len(set(names)) == 10
        assert all(ZOO.entries[name].parent in {None, *names} for name in names)


def test_a_reversed_edge_is_right_but_for_its_direction_and_a_sibling_is_wrong():
    root = next(name for name in ZOO.entries if ZOO.entries[name].kind == "pretrain")
    one, two = [name for name in ZOO.entries if ZOO.entries[name].parent == root][:2]
    rows = lineage.score_models(ZOO, [root, one, two], forest([1, -1, 1]))
    assert [row["right"] for row in rows] == [False, False, False]
    assert [row["edge"] for row in rows] == [False, True, False]
    assert [row["sibling"] for row in rows] == [False, False, True]
    scores = lineage.scores(rows)
    assert (scores["not_sibling"], scores["direction"], scores["family"]) == (0, 0, 1)


def test_support_is_scored_by_outcomes():
    always = {"child": True, "named": True, "sibling": False, "same_root": True}
    rows = [
        always | {"support": support, "right": right, "first": right, "edge": right}
        for support, rights in ((0.8, [1, 1, 1, 1, 0]), (0.3, [0, 1]))
        for right in rights
    ]
    scores = lineage.scores(rows)
    assert scores["brier"] == pytest.approx((4 * 0.04 + 0.64 + 0.09 + 0.49) / 7)
    assert scores["brier_constant"] == pytest.approx(5 / 7 * 2 / 7)
    assert [each["models"] for each in scores["bins"]] == [2, 0, 5, 0]
    assert scores["bins"][2]["support"] == pytest.approx(scores["bins"][2]["right"]) == 0.8
    assert scores["bins"][1]["right"] is None


def test_the_table_has_a_line_for_each_kind_and_each_range_of_support(monkeypatch):
    monkeypatch.setattr(lineage, "METHODS", {"true": true_forest})
    text = lineage.table(lineage.lineage(ScoredStudy(), "true", n_sets=2))
    for how in lineage.SETS:
        assert f"{how}, 0.9 and above" in text
    assert "steal_label" in text
