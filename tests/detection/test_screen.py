"""Several suspects at once."""

import pytest

import modeldiff_jax as md
from modeldiff_jax.detection.conformal import adjusted
from modeldiff_jax.errors import InvalidInputError
from tests.models_for_tests import mlp, perturbed

own_error = pytest.mark.types_unchecked("the error is the product's own")

FAST = {"n_pairs": 24, "n_steps": 5}
TARGET = mlp(0)
SUSPECTS = [perturbed(TARGET, 0.1, seed=1), mlp(1), perturbed(TARGET, 0.2, seed=2), mlp(2, classes=9)]


@pytest.fixture(scope="module")
def references():
    return [mlp(seed) for seed in range(100, 140)]


@pytest.mark.parametrize("correction", ["holm", "benjamini-hochberg"])
def test_p_values_are_those_of_each_alone_adjusted(references, correction):
    found = md.screen(TARGET, SUSPECTS[:3], references=references, correction=correction, alpha=0.1, **FAST)
    alone = [md.compare(TARGET, s, references=references, probes=found.probes, alpha=0.1) for s in SUSPECTS[:3]]
    assert [finding.ranking.judgement.p_value for finding in found.findings] == [c.p_value for c in alone]
    assert [finding.adjusted for finding in found.findings] == adjusted([c.p_value for c in alone], correction)
    assert [finding.verdict for finding in found.findings][::2] == ["reused", "reused"]
    assert found.findings[1].verdict == "no_evidence"


def test_too_few_references_for_so_many_suspects_are_said_to_be(references):
    children = [perturbed(TARGET, 0.05, seed=seed) for seed in range(1, 4)]
    found = md.screen(TARGET, children, references=references[:19], **FAST)
    assert {finding.ranking.judgement.verdict for finding in found.findings} == {"reused"}
    assert {finding.verdict for finding in found.findings} == {"inconclusive"}


def test_suspects_that_no_reference_fits_are_left_open(references):
    found = md.screen(TARGET, SUSPECTS, references=references, alpha=0.1, **FAST)
    assert found.findings[3].adjusted is None
    assert found.findings[3].verdict == "inconclusive"
    assert found.findings[0].adjusted == pytest.approx(3 / 41)  # the three that have a p-value


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
