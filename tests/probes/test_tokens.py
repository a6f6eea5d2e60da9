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
    """The same graph with weights of the same spread that have nothing to do with it."""
    rng = np.random.default_rng(5)
    params = {name: rng.permuted(np.asarray(value)) for name, value in model.params.items()}
    return Model(
        model.apply, params, model.inputs, model.outputs, Origin("stranger", "onnx"), conversion=model.conversion
    )


@one_default
def test_every_input_of_a_transformer_is_found_out(name):
    found = probed_input(load(EXPORTED / f"{name}.onnx"))
    assert found.model.inputs[found.index].name == "input_ids"
    assert (found.space.kind, found.space.low, found.space.high) == ("tokens", 0, VOCABULARY - 1)
    for other, value in found.others.items():
        if "mask" in other:
            assert value.shape == found.shape  # nothing cached, so nothing more to attend to
            assert (value == 1).all()
        elif "position" in other:
            np.testing.assert_array_equal(value[0], np.arange(found.shape[1]))
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
def test_a_fine_tuned_copy_is_nearer_than_a_stranger(name):
    parent = load(EXPORTED / f"{name}.onnx")
    options = {"n_pairs": 12, "n_steps": 3}
    child = compare(parent, perturbed(parent, 0.05), **options)
    stranger = compare(parent, independent(parent), **options)
    assert child.similarity > 0.999
    assert 1 - stranger.similarity > 10 * (1 - child.similarity)
