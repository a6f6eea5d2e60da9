"""Several suspects at once."""

import pytest

import modeldiff_jax as md
from modeldiff_jax.detection.conformal import adjust_p_values
from modeldiff_jax.errors import InvalidInputError, InvalidModelError
from tests.helpers.jax_models import mlp, perturbed

own_error = pytest.mark.types_unchecked("the error is the product's own")

FAST = {"n_pairs": 24, "n_steps": 5}
TARGET = mlp(0)
SUSPECTS = [perturbed(TARGET, 0.1, seed=1), mlp(1), perturbed(TARGET, 0.2, seed=2), mlp(2, classes=9)]


@pytest.fixture(scope="module")
def references():
    return [mlp(seed) for seed in range(100, 140)]


@pytest.mark.parametrize("correction", ["holm", "benjamini-hochberg"])
def test_p_values_are_those_of_single_comparisons_adjusted(references, correction):
    screening = md.screen(TARGET, SUSPECTS[:3], references=references, correction=correction, alpha=0.1, **FAST)
    alone = [md.compare(TARGET, s, references=references, probes=screening.probes, alpha=0.1) for s in SUSPECTS[:3]]
    assert [finding.ranking.decision.p_value for finding in screening.findings] == [c.p_value for c in alone]
    assert [finding.adjusted_p_value for finding in screening.findings] == adjust_p_values(
        [c.ranking.decision.decisive_p_value for c in alone], correction
    )
    assert [finding.verdict for finding in screening.findings][::2] == ["reused", "reused"]
    assert screening.findings[1].verdict == "no_evidence"


def test_near_copies_among_many_are_detected_with_few_references(references):
    children = [perturbed(TARGET, 0.05, seed=seed) for seed in range(1, 14)]
    screening = md.screen(TARGET, children, references=references[:24], **FAST)
    assert {finding.verdict for finding in screening.findings} == {"reused"}
    assert {finding.decision.basis for finding in screening.findings} == {"tail"}


def test_a_model_that_fails_is_named_and_left_out(references, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    broken = str(tmp_path / "broken.onnx")
    screening = md.screen(TARGET, [SUSPECTS[0], broken], references=[*references[:19], broken], **FAST)
    assert [(failure.role, failure.path) for failure in screening.failures] == [
        ("reference", broken),
        ("suspect", broken),
    ]
    assert len(screening.findings) == 1
    assert screening.findings[0].verdict == "reused"
    with pytest.raises(InvalidModelError):
        md.screen(TARGET, [broken], **FAST)


def test_an_identical_suspect_is_reused_and_not_counted(references):
    screening = md.screen(TARGET, [mlp(0), *SUSPECTS[:2]], references=references[:19], **FAST)
    assert screening.findings[0].decision.basis == "identity"
    assert screening.findings[0].adjusted_p_value is None


def test_suspects_that_no_reference_fits_are_inconclusive(references):
    screening = md.screen(TARGET, SUSPECTS, references=references, alpha=0.1, **FAST)
    assert screening.findings[3].adjusted_p_value is None
    assert screening.findings[3].verdict == "inconclusive"
    assert screening.findings[0].adjusted_p_value == pytest.approx(3 * 0.001)  # the three that have a p-value


def test_a_page_and_a_notebook_show_the_result(references):
    screening = md.screen(TARGET, SUSPECTS[:2], references=references[:10], **FAST)
    for row, finding in zip(screening.to_dict()["rows"], screening.findings, strict=True):
        assert len(row["null_scores"]["related"]) == 10
        assert row["score"] == finding.ranking.score
    for shown in (screening.to_html(), screening._repr_html_()):
        assert "2 suspects" in shown
        assert "<svg" in shown


@pytest.mark.parametrize(
    ("suspects", "settings"),
    [
        ([], {}),
        pytest.param([mlp(1)], {"correction": "none"}, marks=own_error),
    ],
)
def test_bad_arguments_are_refused(suspects, settings):
    with pytest.raises(InvalidInputError):
        md.screen(TARGET, suspects, **settings, **FAST)
