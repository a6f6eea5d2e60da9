"""The default calibration: what it holds, and for which pairs it gives context."""

import json

import numpy as np
import pytest

import modeldiff_jax as md
from modeldiff_jax.detection.conformal import references_needed
from modeldiff_jax.detection.default_calibration import FILE
from tests.helpers.jax_models import mlp, perturbed

ENOUGH = {"n_pairs": 25, "n_steps": 3}
PACK = json.loads(FILE.read_text("utf-8"))


@pytest.mark.parametrize("kind", ["same_labels", "other_labels"])
def test_it_holds_enough_similarities_for_the_usual_error_rates(kind):
    similarities = np.array(PACK["similarities"][kind])
    assert len(similarities) >= references_needed(0.01)
    assert (np.abs(similarities) <= 1).all()
    assert len(np.unique(similarities)) > len(similarities) / 2


@pytest.mark.parametrize("classes", [5, 9])
def test_image_classifiers_are_set_into_context_and_never_judged_without_references(classes):
    result = md.compare(mlp(0), mlp(1, classes=classes), **ENOUGH)
    known = np.array(PACK["similarities"]["same_labels" if classes == 5 else "other_labels"])
    found = result.ranking.unrelated_pairs
    assert (found.name, found.n) == (PACK["name"], len(known))
    assert found.share_as_high == pytest.approx(np.mean(known >= result.similarity))
    assert found.low < found.median < found.high
    assert (result.p_value, result.verdict) == (None, "inconclusive")


def test_a_near_copy_is_not_accused_without_references():
    result = md.compare(mlp(0), perturbed(mlp(0), 1e-3), **ENOUGH)
    assert result.similarity > 0.99
    assert result.verdict == "inconclusive"


@pytest.mark.parametrize(
    ("target", "suspect", "settings"),
    [
        (mlp(0), mlp(1), {"n_pairs": 24}),
        (mlp(0), mlp(1), {"seeds": np.random.default_rng(0).uniform(size=(30, 8, 8, 1)).astype(np.float32)}),
        (mlp(0), mlp(1), {"black_box": True}),
        (mlp(0, classes=1), mlp(1, classes=1), {}),
        (mlp(0, shape=(7,)), mlp(1, shape=(7,)), {}),
        (mlp(0), mlp(1), {"references": [mlp(2)]}),
    ],
    ids=["few pairs", "own seeds", "search", "one output", "no images", "references"],
)
def test_it_says_nothing_of_other_pairs(target, suspect, settings):
    result = md.compare(target, suspect, **{**ENOUGH, **settings})
    assert (result.ranking.unrelated_pairs, result.verdict) == (None, "inconclusive")
