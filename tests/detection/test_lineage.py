"""Lineages, from models to the record."""

import numpy as np
import pytest

import modeldiff_jax as md
from modeldiff_jax.errors import InvalidInputError

FAST = {"n_pairs": 24, "n_steps": 3}
SEEDS = np.random.default_rng(5).uniform(-1, 1, size=(24, 12)).astype(np.float32)


def network(rng, parent=None, moved=0.1):
    parts = [rng.normal(size=(12, 32)), rng.normal(size=(32, 16)) / 4, rng.normal(size=(16, 5))]
    if parent is not None:
        parts = [old + moved * old.std() * new / new.std() for old, new in zip(parent, parts, strict=True)]
    return parts


def model(parts):
    a, b, c = (part.astype(np.float32) for part in parts)
    spec = md.TensorSpec("x", ("N", 12), np.dtype(np.float32))
    return md.from_callable(lambda x: np.tanh(np.tanh(x @ a) @ b) @ c, spec)


@pytest.fixture(scope="module")
def lineage():
    rng = np.random.default_rng(0)
    parent = network(rng)
    networks = [parent, network(rng, parent), network(rng, parent), network(rng), network(rng)]
    return md.lineage([model(parts) for parts in networks], seeds=SEEDS, **FAST)


def test_relatives_are_distinguished_from_unrelated_models(lineage):
    assert lineage.parents[3:] == (None, None)
    assert sum(parent is not None for parent in lineage.parents[:3]) >= 1
    assert {3, 4} <= set(lineage.roots)


def test_children_and_parents_agree(lineage):
    for i in (None, *range(5)):
        assert all(lineage.parents[child] == i for child in lineage.children(i))


def test_the_record_holds_parents_and_support(lineage):
    record = lineage.to_dict()
    assert [row["parent"] for row in record["rows"]] == list(lineage.parents)
    for child, row in enumerate(record["rows"]):
        supports = [entry["support"] for entry in row["likely"]]
        assert supports == sorted(supports, reverse=True)
        assert child not in [entry["parent"] for entry in row["likely"]]
        assert sum(supports) <= 1 + 1e-3


@pytest.mark.parametrize("models", [[], [model(network(np.random.default_rng(0)))]])
def test_one_model_has_no_lineage(models):
    with pytest.raises(InvalidInputError, match="two models"):
        md.lineage(models)


def test_a_page_and_a_notebook_show_the_tree(lineage):
    for shown in (lineage.to_html(), lineage._repr_html_()):
        assert "descends from" in shown
