"""The default calibration: its content, and for which comparisons it gives context."""

import json

import numpy as np
import pytest

import modeldiff_jax as md
from modeldiff_jax.detection.conformal import references_needed
from modeldiff_jax.detection.default_calibration import FILE
from tests.helpers.jax_models import mlp, perturbed

ENOUGH = {"n_pairs": 25, "n_steps": 3}
CALIBRATION = json.loads(FILE.read_text("utf-8"))


@pytest.mark.parametrize("kind", ["same_label_space", "other_label_space"])
def test_it_holds_enough_similarities_for_the_usual_error_rates(kind):
    similarities = np.array(CALIBRATION["similarities"][kind])
    assert len(similarities) >= references_needed(0.01)
    assert (np.abs(similarities) <= 1).all()
    assert len(np.unique(similarities)) > len(similarities) / 2


@pytest.mark.parametrize("classes", [5, 9])
def test_image_classifiers_get_context_and_no_verdict_without_references(classes):
    result = md.compare(mlp(0), mlp(1, classes=classes), **ENOUGH)
    stored = np.array(CALIBRATION["similarities"]["same_label_space" if classes == 5 else "other_label_space"])
    context = result.ranking.unrelated_pairs
    assert (context.name, context.n) == (CALIBRATION["name"], len(stored))
    assert context.share_as_high == pytest.approx(np.mean(stored >= result.similarity))
    assert context.low < context.median < context.high
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
    ids=["few pairs", "seeds given", "black box", "one output", "no images", "references"],
)
def test_other_comparisons_get_no_context(target, suspect, settings):
    result = md.compare(target, suspect, **{**ENOUGH, **settings})
    assert (result.ranking.unrelated_pairs, result.verdict) == (None, "inconclusive")
