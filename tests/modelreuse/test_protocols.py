"""Rules of evaluation on scores whose result is known, and malformed folders."""

import json

import numpy as np
import pytest

from bench.modelreuse import protocols, recipes
from bench.modelreuse.__main__ import main
from bench.modelreuse.folder import Zoo
from modeldiff_jax.errors import InvalidInputError

from .test_recipes import zoo_of


class ScoredStudy:
    """The part of a study that protocols need."""

    key = 0

    def __init__(self, zoo):
        self.zoo, self.names = zoo, list(zoo.entries)


STUDY = ScoredStudy(zoo_of([*recipes.paper(), *recipes.beyond()]))


def same_root(study, owners, suspects, orientation):
    """Scores 1 for models of one root, else 0."""
    roots = study.zoo.entries
    return np.array([[float(roots[o].root == roots[s].root) for s in suspects] for o in owners])


def zeros(study, owners, suspects, orientation):
    return np.zeros((len(owners), len(suspects)))


def incomparable(study, owners, suspects, orientation):
    return np.full((len(owners), len(suspects)), -np.inf)


@pytest.mark.parametrize(("protocol", "total"), [("strict", 84), ("pairs144", 144), ("roc", 0)])
def test_true_scores_are_right_and_constant_scores_are_not(protocol, total):
    right = protocols.PROTOCOLS[protocol](STUDY, same_root, "suspect")
    assert (right["strict_correct"], right["strict_total"], right["auc"]) == (total, total, 1.0)
    assert right["tpr_at_5_fpr"] == right["tpr_at_1_fpr"] == 1.0
    for method in (zeros, incomparable):
        wrong = protocols.PROTOCOLS[protocol](STUDY, method, "suspect")
        assert (wrong["strict_correct"], wrong["auc"], wrong["tpr_at_5_fpr"]) == (0, 0.5, 0.0)


def test_every_kind_has_a_row():
    kinds = protocols.strict(STUDY, same_root, "suspect")["kinds"]
    assert {kind for kind, row in kinds.items() if row["strict_total"]} == set(protocols.PAPER_KINDS)
    assert {"chain", "merge", "steal_label", "steal_adversarial"} <= set(kinds)
    assert "independent" not in kinds


def test_rates_against_a_count_by_hand():
    rng = np.random.default_rng(0)
    positives, negatives = rng.normal(1, 1, 50), rng.normal(0, 1, 400)
    rates = protocols._rates(list(positives), list(negatives))
    assert rates["auc"] == pytest.approx(np.mean(positives[:, None] > negatives))
    for name, rate in (("tpr_at_5_fpr", 0.05), ("tpr_at_1_fpr", 0.01)):
        cut = np.sort(negatives)[-int(rate * 400) - 1]
        assert np.mean(negatives > cut) <= rate
        assert rates[name] == np.mean(positives > cut)


def manifest(**changes):
    model = {"name": "a", "file": "a.onnx", "arch": "r", "dataset": "d", "root": "a", "parent": None}
    model |= {"kind": "train", "classes": 2}
    return {"mean": 0.5, "std": 0.5, "layout": "NCHW", "models": [model]} | changes


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        json.dumps([]),
        json.dumps(manifest(layout="CHWN")),
        json.dumps(manifest(models=[{"name": "a"}])),
        json.dumps(manifest(models=manifest()["models"] * 2)),
        json.dumps(manifest(models=[manifest()["models"][0] | {"parent": "unknown"}])),
    ],
)
def test_bad_manifests_are_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InvalidInputError):
        Zoo(tmp_path)
    assert main(["evaluate", str(tmp_path), "--method", "modeldiff"]) == 2


def test_no_folder_and_unknown_methods_are_refused(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "none"), "--method", "modeldiff"]) == 2
    assert main(["evaluate", str(tmp_path), "--method", "magic"]) == 2
    assert "akh" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_images_are_normalised_channel_by_channel(tmp_path, layout):
    (tmp_path / "manifest.json").write_text(json.dumps(manifest(mean=[0, 0.5, 1], std=[1, 0.5, 0.25], layout=layout)))
    x = np.full((1, 3, 2, 2) if layout == "NCHW" else (1, 2, 2, 3), 255, np.uint8)
    got = Zoo(tmp_path).normalised(x)
    channels = got[0, :, 0, 0] if layout == "NCHW" else got[0, 0, 0]
    np.testing.assert_allclose(channels, [1, 1, 0])
