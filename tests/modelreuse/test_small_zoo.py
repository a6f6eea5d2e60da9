"""The small zoo, from rendered images to a table."""

import json

import numpy as np
import pytest

from bench.modelreuse.__main__ import main
from bench.modelreuse.build import Size, build
from bench.modelreuse.folder import Zoo
from bench.modelreuse.methods import METHODS
from bench.modelreuse.reactions import Reactor
from modeldiff_jax.models.family import united

TINY = Size(
    ("digits",),
    {"objects": 3000, "digits": 400},
    200,
    300,
    {"pretrain": 400, "train": 200, "transfer": 150, "prune": 40, "distill": 150, "steal": 200},
)

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("zoo")
    build(where, TINY, seed=3, report=lambda line: None)
    return where


def evaluated(folder, capsys, *options):
    assert main(["evaluate", str(folder), "--pairs", "40", "--format", "json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_second_run_makes_nothing_anew(folder):
    files = {path: path.stat().st_mtime_ns for path in (folder / "models").iterdir()}
    zoo = build(folder, TINY, seed=3, report=lambda line: None)
    assert {path: path.stat().st_mtime_ns for path in (folder / "models").iterdir()} == files
    assert len(zoo.entries) == len(files) == 70


def test_a_quantised_model_is_nearer_to_its_parent_than_a_stolen_one(folder):
    reactor = Reactor({name: Zoo(folder).path(name) for name in Zoo(folder).entries})
    x = np.random.default_rng(0).normal(size=(20, 3, 32, 32)).astype(np.float32)
    parent = "pretrain(resnet,objects)-transfer(digits,1.0)-"
    outputs = reactor.logits([parent, f"{parent}quantize(int8)-", f"{parent}steal(mobilenet)-"], x)
    owner, quantised, stolen = outputs.values()
    difference = [np.linalg.norm(other - owner) / np.linalg.norm(owner) for other in (quantised, stolen)]
    assert 0 < difference[0] < difference[1]
    assert len({model.apply for model in united(list(reactor.models.values()))}) < len(reactor.models) / 2


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_evaluated(folder, capsys, method):
    result = evaluated(folder, capsys, "--method", method, "--orientation", "owner")
    assert result["strict_total"] == 42
    assert 0 <= result["auc"] <= 1
    assert result["kinds"]["quantize"]["auc"] > 0.9  # all methods detect a copy in 8 bits


@pytest.mark.parametrize("orientation", ["owner", "suspect", "both"])
def test_the_papers_method_detects_pruned_models(folder, capsys, orientation):
    result = evaluated(folder, capsys, "--method", "modeldiff", "--orientation", orientation)
    assert result["kinds"]["prune"]["auc"] > 0.8


def test_several_representations_do_better_than_decision_distances_alone(folder, capsys):
    ours, modeldiff = (
        evaluated(folder, capsys, "--method", m, "--orientation", "owner") for m in ("ours", "modeldiff")
    )
    assert ours["auc"] > modeldiff["auc"]
    assert ours["strict_correct"] >= modeldiff["strict_correct"]


def test_thieves_hide_and_forged_claims_are_refused(folder, capsys, tmp_path):
    small = ["--pairs", "40", "--steps", "30", "--keys", "2", "--format", "json", "--plot", str(tmp_path / "plot.svg")]
    assert main(["adversary", str(folder), *small]) == 0
    result = json.loads(capsys.readouterr().out)
    copies = {(row["term"], row["knows"], row["weight"]): row["ours"]["score"] for row in result["thieves"]}
    assert copies["evidence", "leaked", 3.0] < copies["none", "own", 0.0]
    accepted = {row["how"]: row["accepted"] for row in result["claims"]}
    assert accepted == {"honest": True, "crafted pairs": False, "nudged partners": True, "picked seeds": False}
    assert np.mean([row["p"] <= 0.05 for row in result["claims"] if row["how"] == "crafted pairs"]) > 0.5
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")
