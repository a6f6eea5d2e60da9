"""Identity: the same bytes, weights or outputs; never by chance."""

import numpy as np
import pytest

import modeldiff_jax as md
from modeldiff_jax.detection.identity import same_outputs
from modeldiff_jax.evidence.reactions import Reactions
from tests.helpers.jax_models import mlp, perturbed

FAST = {"n_pairs": 24, "n_steps": 3}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 30, 6)).astype(np.float32)


def one_hot(x):
    return np.eye(x.shape[-1], dtype=np.float32)[x.argmax(-1)]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (X, X, True),
        (X, X * (1 + 1e-7), True),  # rounding of another compiler
        (
            X,
            X.astype(np.float16).astype(np.float32),
            False,
        ),  # differs by more, and is found by its score
        (X, X + 1e-3, False),
        (one_hot(X), one_hot(X), False),  # labels: unrelated models of one task agree on them
        (np.zeros_like(X), np.zeros_like(X), False),
        (X, X[..., :5], False),
    ],
    ids=["equal", "rounding", "float16", "shifted", "labels", "constant", "other outputs"],
)
def test_same_outputs(a, b, expected):
    assert same_outputs(Reactions.of(*a), Reactions.of(*b)) == expected


@pytest.mark.parametrize(
    ("suspect", "kind"),
    [
        (lambda: mlp(0), "file"),
        (lambda: perturbed(mlp(0), 0.0), "weights"),
        (lambda: md.from_callable(lambda x: np.asarray(mlp(0)(x)), [("n", 8, 8, 1)]), "outputs"),
        (lambda: perturbed(mlp(0), 1e-3), None),
    ],
)
def test_identity_is_said_and_decides_without_references(suspect, kind):
    result = md.compare(mlp(0), suspect(), **FAST)
    assert result.ranking.identity == kind
    assert result.verdict == ("reused" if kind else "inconclusive")
    assert result.to_dict()["identity"] == kind


def test_two_copies_of_one_file_are_not_attacked():
    result = md.compare(mlp(0), mlp(0), **FAST)
    assert result.orientations[0].probes.origin["method"] == "search"
    assert result.similarity > 0.999
