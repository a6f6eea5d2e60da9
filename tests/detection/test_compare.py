"""The whole comparison on small models: orientations, references, black boxes, refusals."""

import jax
import numpy as np
import pytest

import modeldiff_jax as md
from modeldiff_jax.errors import InvalidInputError, NonFiniteError, NotAdaptableError
from tests.helpers.jax_models import mlp, perturbed

own_error = pytest.mark.types_unchecked("the error is the product's own")

FAST = {"n_pairs": 24, "n_steps": 5}


def test_a_model_is_identical_to_itself():
    result = md.compare(mlp(0), mlp(0), **FAST)
    assert result.similarity > 0.999
    assert result.evidence.keys() == {"ddv_target"}
    assert (result.verdict, result.ranking.identity) == ("reused", "file")


def test_without_references_the_verdict_is_inconclusive_and_asks_for_references():
    result = md.compare(mlp(0), mlp(1), **FAST)
    assert result.verdict == "inconclusive"
    assert result.p_value is None
    assert "references" in result.to_dict()["reason"]


def test_a_child_is_called_reused_and_an_unrelated_model_ranks_lower():
    target = mlp(0)
    references = [mlp(seed) for seed in range(100, 119)]
    child = md.compare(target, perturbed(target, 0.1), references=references, **FAST)
    assert child.verdict == "reused"
    assert child.p_value == pytest.approx(1 / 20)
    unrelated = md.compare(target, mlp(7), references=references, **FAST)
    assert unrelated.p_value > child.p_value


def test_with_enough_references_the_representations_are_shown():
    target = mlp(0)
    references = [mlp(seed) for seed in range(100, 119)]
    child = md.compare(target, perturbed(target, 0.1), references=references, **FAST)
    assert child.ranking.score == child.evidence["related"] > max(reference.related for reference in child.references)
    representations = child.ranking.representations
    assert [entry["name"] for entry in representations] == ["logits", "probabilities", "ddv", "geometry"]
    assert {entry["supports"] for entry in representations} == {"reuse"}
    few = md.compare(target, perturbed(target, 0.1), references=references[:3], **FAST)
    assert few.ranking.score == few.similarity
    assert few.ranking.representations == []


@pytest.mark.parametrize(("classes", "ranked"), [(5, 12), (9, 8), (7, 8)])
def test_only_references_of_the_suspects_kind_are_ranked(classes, ranked):
    references = [mlp(seed) for seed in range(100, 112)] + [mlp(seed, classes=9) for seed in range(200, 208)]
    result = md.compare(mlp(0), mlp(1, classes=classes), references=references, **FAST)
    assert sum(reference.counted for reference in result.references) == ranked
    assert any("not ranked" in note for note in result.notes)
    assert result.p_value >= 1 / (ranked + 1)


def test_a_softmax_at_the_end_changes_little():
    target, references = mlp(0), [mlp(seed) for seed in range(100, 119)]
    child = perturbed(target, 0.1)
    probabilities = md.from_callable(
        lambda x: np.asarray(jax.nn.softmax(child(x))), [("n", 8, 8, 1)], name="probabilities"
    )
    probes = md.make_probes(target, n_pairs=24, n_steps=5)
    logits, softmax = (md.compare(target, m, probes=probes, references=references) for m in (child, probabilities))
    assert softmax.p_value == logits.p_value == pytest.approx(1 / 20)
    assert softmax.evidence["logits"] == pytest.approx(logits.evidence["logits"], rel=1e-2)


def test_a_page_and_a_notebook_show_the_result():
    result = md.compare(mlp(0), mlp(1), **FAST)
    for shown in (result.to_html(), result._repr_html_()):
        assert f"{result.similarity:.2f}" in shown
        assert "<svg" in shown
    assert "<html" not in result._repr_html_()


def test_the_record_holds_the_vectors_and_the_scores_that_the_verdict_comes_from():
    references = [mlp(seed) for seed in range(100, 119)]
    result = md.compare(mlp(0), mlp(1), references=references, **FAST)
    record = result.to_dict()
    for probes, orientation in zip(record["probes"], result.orientations, strict=True):
        a, b = (md.DDV(probes[f"{side}_ddv"], probes["probe_set_id"]) for side in ("target", "suspect"))
        np.testing.assert_array_equal(a, orientation.target_ddv)
        assert md.ddv_similarity(a, b) == pytest.approx(orientation.similarity, abs=1e-6)
    null = record["null_scores"]
    assert set(null) == {"similarity"} | set(record["evidence"]) - {"ddv_target", "ddv_suspect"}
    assert [reference["similarity"] for reference in record["references"]] == null["similarity"]
    assert [reference["related"] for reference in record["references"]] == null["related"]
    assert record["p_value"] == (1 + sum(score >= record["score"] for score in null["related"])) / 20


def test_references_that_are_not_ranked_are_explained():
    references = [mlp(seed, classes=5 + seed % 2) for seed in range(100, 104)]
    notes = md.compare(mlp(0), mlp(1), references=references, **FAST).notes
    assert any("2 of 4 references are not ranked" in note and note.endswith("another number.") for note in notes)
    notes = md.compare(mlp(0), mlp(1, classes=9), references=references, **FAST).notes
    assert any("2 of 4 references are not ranked" in note and note.endswith("as the target.") for note in notes)


def test_both_orientations_are_reported_with_their_probe_sets():
    result = md.compare(mlp(0), mlp(1, classes=9), **FAST)
    assert [o.made_on for o in result.orientations] == ["target", "suspect"]
    assert len({o.probes.probe_set_id for o in result.orientations}) == 2
    assert result.evidence["ddv_target"] == result.similarity


def test_the_same_key_gives_the_same_result_and_another_key_another():
    first, again, other = (md.compare(mlp(0), mlp(1), key=key, **FAST) for key in (0, 0, 1))
    assert first.similarity == again.similarity
    assert first.orientations[0].probes.probe_set_id == again.orientations[0].probes.probe_set_id
    assert first.orientations[0].probes.probe_set_id != other.orientations[0].probes.probe_set_id


def as_black_box(model):
    return md.from_callable(lambda x: np.asarray(model(x)), [("n", 8, 8, 1)], name="remote")


def test_a_black_box_suspect_is_only_queried():
    target = mlp(0)
    result = md.compare(target, as_black_box(perturbed(target, 0.05)), **FAST)
    assert [o.made_on for o in result.orientations] == ["target"]
    assert result.queries["suspect"] == 2 * FAST["n_pairs"]


def test_two_black_boxes_have_partners_by_hill_climbing_on_both_sides():
    result = md.compare(as_black_box(mlp(0)), as_black_box(mlp(0)), n_pairs=8)
    assert [o.made_on for o in result.orientations] == ["target", "suspect"]
    assert result.similarity > 0.999
    assert result.queries["target"] > 16


def test_black_box_mode_uses_no_gradients():
    result = md.compare(mlp(0), mlp(1), black_box=True, n_pairs=8)
    assert {o.probes.origin["method"] for o in result.orientations} == {"search"}


def test_given_probes_are_used_as_they_are():
    target = mlp(0)
    probes = md.make_probes(target, n_pairs=16, n_steps=3)
    result = md.compare(target, mlp(1), probes=probes)
    assert result.to_dict()["probe_set_id"] == probes.probe_set_id
    assert result.evidence.keys() == {"ddv_given"}


def test_copies_among_the_references_are_left_out_with_a_note():
    target, suspect = mlp(0), mlp(1)
    result = md.compare(target, suspect, references=[mlp(0), mlp(1), mlp(2)], **FAST)
    assert [r.origin.path for r in result.references] == ["mlp-2"]
    assert sum("left out" in note for note in result.notes) == 2


def test_a_single_component_is_compared_by_euclidean_distance():
    result = md.compare(mlp(0, classes=1), mlp(1, classes=3), **FAST)
    assert {o.probes.metric for o in result.orientations} == {"euclidean"}


def test_models_of_other_kinds_cannot_be_compared():
    with pytest.raises(NotAdaptableError):
        md.compare(mlp(0, shape=(8, 8, 1)), mlp(1, shape=(7,)), **FAST)


def test_outputs_that_are_not_numbers_are_refused():
    target = mlp(0)
    broken = perturbed(target, float("nan"))
    with pytest.raises(NonFiniteError):
        md.compare(target, broken, **FAST)


@pytest.mark.parametrize("argument", [{"alpha": 0}, {"n_pairs": 1}, {"seeds": np.zeros((0, 8, 8, 1), np.float32)}])
def test_bad_arguments_are_refused(argument):
    with pytest.raises(InvalidInputError):
        md.compare(mlp(0), mlp(1), **{**FAST, **argument})


@own_error
def test_an_object_that_is_not_a_model_is_refused():
    with pytest.raises(InvalidInputError, match="path"):
        md.compare(mlp(0), 3)
