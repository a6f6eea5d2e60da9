"""Trees of descent, from models to the record."""

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
def found():
    rng = np.random.default_rng(0)
    parent = network(rng)
    made = [parent, network(rng, parent), network(rng, parent), network(rng), network(rng)]
    return md.lineage([model(parts) for parts in made], seeds=SEEDS, **FAST)


def test_a_family_is_told_from_strangers(found):
    assert found.parents[3:] == (None, None)
    assert sum(parent is not None for parent in found.parents[:3]) >= 1
    assert {3, 4} <= set(found.roots)


def test_children_and_parents_agree(found):
    for i in (None, *range(5)):
        assert all(found.parents[child] == i for child in found.children(i))


def test_the_record_says_what_was_found(found):
    record = found.to_dict()
    assert [row["parent"] for row in record["rows"]] == list(found.parents)
    for child, row in enumerate(record["rows"]):
        supports = [each["support"] for each in row["likely"]]
        assert supports == sorted(supports, reverse=True)
        assert child not in [each["parent"] for each in row["likely"]]
        assert sum(supports) <= 1 + 1e-3


@pytest.mark.parametrize("models", [[], [model(network(np.random.default_rng(0)))]])
def test_one_model_has_no_lineage(models):
    with pytest.raises(InvalidInputError, match="two models"):
        md.lineage(models)


def test_a_page_and_a_notebook_show_the_tree(found):
    for shown in (found.to_html(), found._repr_html_()):
        assert "descends from" in shown
