"""The zoo holds the paper's models."""

from collections import Counter

import pytest

from bench.modelreuse import efficientnet, protocols, recipes
from bench.modelreuse.folder import Entry, Zoo


def zoo_of(listed) -> Zoo:
    zoo = object.__new__(Zoo)
    zoo.entries = {
        r.name: Entry(r.name, f"{r.name}.onnx", r.arch, r.dataset, r.root, r.parent or None, r.kind, 10) for r in listed
    }
    return zoo


def test_the_papers_138_models_by_kind():
    counts = Counter(recipe.kind for recipe in recipes.paper())
    expected = {"pretrain": 2, "train": 4, "transfer": 12, "quantize": 24, "prune": 48, "distill": 16, "steal": 32}
    assert counts == expected
    assert sum(counts.values()) == 138


def test_the_84_targets_of_the_strict_rule():
    counts = Counter(entry.kind for entry in protocols.targets(zoo_of(recipes.paper())))
    assert counts == {"transfer": 12, "quantize": 12, "prune": 36, "distill": 12, "steal": 12}


def test_kinds_that_the_paper_lacks_add_no_target():
    listed = [*recipes.paper(), *recipes.beyond()]
    assert len(protocols.targets(zoo_of(listed))) == 84


@pytest.mark.parametrize(
    "listed",
    [recipes.paper(), [*recipes.paper(), *recipes.beyond()], recipes.track(tuple(efficientnet.DEPTHS))],
    ids=["paper", "beyond", "track"],
)
def test_names_are_chains_whose_links_exist_and_come_first(listed):
    seen = set()
    for recipe in listed:
        assert recipe.name not in seen
        assert all(name in seen for name in (recipe.parent, recipe.other) if name)
        assert not recipe.parent or recipe.name.startswith(recipe.parent)
        assert recipe.root == recipe.name or recipe.root in seen
        seen.add(recipe.name)


def test_the_track_has_two_roots_and_every_step_of_reuse():
    listed = recipes.track(tuple(efficientnet.DEPTHS))
    counts = Counter(recipe.kind for recipe in listed)
    assert counts == {"pretrain": 2, "train": 4, "transfer": 12, "quantize": 8, "prune": 4, "steal": 4}
    assert all(recipe.arch != efficientnet_of(recipe.parent) for recipe in listed if recipe.kind == "steal")


def efficientnet_of(name):
    return name[name.index("(") + 1 :].split(",")[0]


def test_seeds_differ_between_models_and_between_zoos():
    listed = [*recipes.paper(), *recipes.beyond()]
    seeds = {recipe.seed(zoo) for recipe in listed for zoo in (0, 1)}
    assert len(seeds) == 2 * len(listed)
