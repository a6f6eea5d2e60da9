"""Models that read tokens, probed and compared from end to end."""

from pathlib import Path

import numpy as np
import pytest

from modeldiff_jax.detection.compare import compare
from modeldiff_jax.models.inputs.probed_input import probed_input
from modeldiff_jax.models.load import load
from modeldiff_jax.models.model import Model, Origin
from modeldiff_jax.probes.hill_climbing import EPS_TOKENS
from modeldiff_jax.probes.make import make_probes
from tests.helpers.jax_models import perturbed

EXPORTED = Path(__file__).parent.parent / "models" / "onnx" / "exported"
VOCABULARY = 61
one_default = pytest.mark.parametrize(
    "name",
    [
        "llama-dynamo-23",
        pytest.param("bert-script-17", marks=pytest.mark.long),
        pytest.param("gpt-dynamo-20", marks=pytest.mark.long),
    ],
)


def independent(model):
    """Returns the same graph with unrelated weights of the same deviation."""
    rng = np.random.default_rng(5)
    params = {name: rng.permuted(np.asarray(value)) for name, value in model.params.items()}
    return Model(
        model.apply, params, model.inputs, model.outputs, Origin("unrelated", "onnx"), conversion=model.conversion
    )


@one_default
def test_every_input_of_a_transformer_is_recognised(name):
    probed = probed_input(load(EXPORTED / f"{name}.onnx"))
    assert probed.model.inputs[probed.index].name == "input_ids"
    assert (probed.space.kind, probed.space.low, probed.space.high) == ("tokens", 0, VOCABULARY - 1)
    for other, value in probed.others.items():
        if "mask" in other:
            assert value.shape == probed.shape  # no cache, so no more positions to attend to
            assert (value == 1).all()
        elif "position" in other:
            np.testing.assert_array_equal(value[0], np.arange(probed.shape[1]))
        elif "past" in other:
            assert value.shape[2] == 0


@one_default
def test_partners_are_made_by_substituting_tokens(name):
    probes = make_probes(load(EXPORTED / f"{name}.onnx"), n_pairs=6, n_steps=2)
    assert probes.seeds.dtype == probes.partners.dtype == np.int32
    assert probes.partners.min() >= 0
    assert probes.partners.max() < VOCABULARY
    changed = (probes.seeds != probes.partners).sum(axis=1)
    assert (changed >= 1).all()
    assert (changed <= max(1, round(EPS_TOKENS * probes.seeds.shape[1]))).all()


@one_default
def test_a_fine_tuned_copy_is_nearer_than_an_unrelated_model(name):
    parent = load(EXPORTED / f"{name}.onnx")
    options = {"n_pairs": 12, "n_steps": 3}
    child = compare(parent, perturbed(parent, 0.05), **options)
    unrelated = compare(parent, independent(parent), **options)
    assert child.similarity > 0.999
    assert 1 - unrelated.similarity > 10 * (1 - child.similarity)
