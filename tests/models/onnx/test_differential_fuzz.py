"""Variations of ONNX's own node cases under onnxruntime and here: shapes, types and values agree.

Where they do not, one of `differential/deviations.py` says why. What ends or stalls onnxruntime's process is skipped.
"""

from collections import Counter

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from tests.models.onnx.differential.comparison import compare, concrete, difference
from tests.models.onnx.differential.deviations import DEVIATIONS
from tests.models.onnx.differential.mutations import originals, varied
from tests.models.onnx.differential.runtime import Runtime

SEEDS = (0, 1)  # each gives about 640 variations that onnxruntime runs


def differences(cases, seed, verdicts):
    """Compares a variation of each case; yields those that differ, with the difference in words."""
    with Runtime() as runtime:
        for case in cases:
            variation = varied(case, seed)
            if variation is not None:
                verdict, off = compare(variation, runtime)
                verdicts[verdict] += 1
                if off is not None:
                    yield variation, off


def explanation(variation, off):
    """The deviation that covers a difference, if there is one and the reference evaluator does not contradict it."""
    result = next((deviation for deviation in DEVIATIONS if deviation.covers(variation, off)), None)
    if result is not None and result.reference:
        model = variation.model()
        with np.errstate(all="ignore"):
            want = ReferenceEvaluator(model).run(None, variation.feeds)
        if difference(want, concrete(model, variation.feeds)) is not None:
            return None
    return result


def check(cases, seed, verdicts):
    """Fails where a variation differs and no deviation explains it."""
    unexplained = [
        f"{variation}\n    {off}"
        for variation, off in differences(cases, seed, verdicts)
        if explanation(variation, off) is None
    ]
    assert not unexplained, "these differ:\n" + "\n".join(unexplained)


def test_some_variations_agree():
    verdicts = Counter()
    check(originals()[::80], 0, verdicts)
    assert verdicts["compared"] >= 5


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # numpy's, of both evaluators, where values overflow
def test_variations_agree():
    verdicts = Counter()
    for seed in SEEDS:
        check(originals(), seed, verdicts)
    assert verdicts["compared"] >= 1_200, verdicts
    assert verdicts["died"] + verdicts["hung"] <= 10, verdicts


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_every_deviation_is_needed():
    by_name, unneeded = {case.origin: case for case in originals()}, []
    with Runtime() as runtime:
        for deviation in DEVIATIONS:
            if deviation.example is None:
                continue
            name, seed = deviation.example
            variation = varied(by_name[name], seed)
            _, off = compare(variation, runtime)
            if off is None or explanation(variation, off) is not deviation:
                unneeded.append(f"{deviation.cause}: {off}")
    assert not unneeded, "no longer needed; take them out of deviations.py:\n" + "\n".join(unneeded)
