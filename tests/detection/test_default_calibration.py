"""The default calibration: for which pairs it speaks, and what it holds."""

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
def test_image_classifiers_get_a_p_value_without_references(classes):
    result = md.compare(mlp(0), mlp(1, classes=classes), **ENOUGH)
    null = np.array(PACK["similarities"]["same_labels" if classes == 5 else "other_labels"])
    assert result.ranking.calibration == PACK["name"]
    assert result.p_value == pytest.approx((1 + np.sum(null >= result.similarity)) / (1 + len(null)))
    assert any("Default calibration" in note for note in result.notes)


def test_a_copy_is_called_reused():
    assert md.compare(mlp(0), perturbed(mlp(0), 1e-3), **ENOUGH).verdict == "reused"


@pytest.mark.parametrize(
    ("target", "suspect", "settings"),
    [
        (mlp(0), mlp(1), {"n_pairs": 24}),
        (mlp(0), mlp(1), {"seeds": np.random.default_rng(0).uniform(size=(30, 8, 8, 1)).astype(np.float32)}),
        (mlp(0), mlp(1), {"black_box": True}),
        (mlp(0, classes=1), mlp(1, classes=1), {}),
        (mlp(0, shape=(7,)), mlp(1, shape=(7,)), {}),
    ],
    ids=["few pairs", "own seeds", "search", "one output", "no images"],
)
def test_it_says_nothing_of_other_pairs(target, suspect, settings):
    result = md.compare(target, suspect, **{**ENOUGH, **settings})
    assert (result.ranking.calibration, result.p_value, result.verdict) == ("none", None, "inconclusive")


def test_references_come_first():
    result = md.compare(mlp(0), mlp(1), references=[mlp(2)], **ENOUGH)
    assert result.ranking.calibration == "references"
    assert result.p_value in (1 / 2, 1)
