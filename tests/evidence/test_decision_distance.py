"""DDVs against their definition, and the refusal to compare across probe sets."""

import jax
import numpy as np
import pytest
from scipy.spatial.distance import cdist

import modeldiff_jax as md
from modeldiff_jax.errors import InvalidInputError, NonFiniteError, NotAdaptableError, ProbeSetMismatchError
from modeldiff_jax.evidence.decision_distance import DDV
from modeldiff_jax.models.inputs.probed_input import probed_input
from modeldiff_jax.probes import adapt as adapting
from modeldiff_jax.probes.probe_set import ProbeSet
from tests.helpers.jax_models import mlp
from tests.models.test_family import loaded, network
from tests.models.test_flax import build

own_error = pytest.mark.types_unchecked("the error is the product's own")


def probes_for(model, n=12, metric="cosine", seed=0):
    rng = np.random.default_rng(seed)
    space = probed_input(model).space
    seeds = rng.uniform(size=(n, *space.shape)).astype(np.float32)
    partners = np.clip(seeds + rng.uniform(-0.05, 0.05, seeds.shape), 0, 1).astype(np.float32)
    return ProbeSet(seeds, partners, space, metric, {"method": "test"})


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "cityblock"])
def test_entries_are_distances_between_reactions_to_a_pair(metric):
    model = mlp(0)
    probes = probes_for(model, metric=metric)
    seeds, partners = (np.asarray(model(x), np.float64) for x in (probes.seeds, probes.partners))
    expected = np.diag(cdist(seeds, partners, metric))
    vector = md.ddv(model, probes)
    assert vector.shape == (12,)
    assert vector.dtype == np.float32
    # reactions are float32, whose rounding limits the accuracy of small distances
    np.testing.assert_allclose(vector, expected, rtol=1e-3)


def test_several_models_stack():
    models = [mlp(seed) for seed in range(3)]
    probes = probes_for(models[0])
    stacked = md.ddv(models, probes)
    assert stacked.shape == (3, 12)
    for model, row in zip(models, stacked, strict=True):
        np.testing.assert_array_equal(row, md.ddv(model, probes))


def test_label_spaces_may_differ():
    probes = probes_for(mlp(0, classes=5))
    assert md.ddv([mlp(0, classes=5), mlp(1, classes=17)], probes).shape == (2, 12)


def families():
    """Two ONNX families, one of them with some tensors renamed, and a Flax family, mixed."""
    tanh = [loaded(network(seed, op="Tanh")) for seed in (4, 5)]
    return [
        loaded(network(0)), build("linen", 1), tanh[0], loaded(network(1, "other/")),
        build("linen", 2), loaded(network(2)), tanh[1],
    ]  # fmt: skip


@pytest.mark.parametrize("stacked", [False, True])
def test_several_families_at_once_give_the_ddvs_of_each_model_alone(stacked, monkeypatch):
    models = families()
    probes = probes_for(models[1])
    one_by_one = [np.asarray(md.ddv(model, probes)) for model in models]
    together = adapting.react_together
    monkeypatch.setattr(
        "modeldiff_jax.evidence.decision_distance.react_together", lambda *args: together(*args, stacked=stacked)
    )
    np.testing.assert_allclose(md.ddv(models, probes), one_by_one, rtol=1e-5 if not stacked else 1e-4)


@pytest.mark.parametrize("stacked", [False, True])
def test_each_family_is_compiled_once(stacked, caplog, monkeypatch):
    together = adapting.react_together
    monkeypatch.setattr(
        "modeldiff_jax.evidence.decision_distance.react_together", lambda *args: together(*args, stacked=stacked)
    )
    models = families()
    probes = probes_for(models[1], n=11)
    md.ddv([mlp(0)], probes)  # compiles what all share
    with jax.log_compiles():
        md.ddv(models, probes)
    compiled = [r.message for r in caplog.records if r.message.startswith("Finished XLA compilation")]
    programs = [message for message in compiled if "jit(__call__)" in message or "jit(<lambda>)" in message]
    assert len(programs) == 3, compiled


def test_chunks_of_models_are_compiled_once_and_stay_in_order(monkeypatch, caplog):
    monkeypatch.setattr(adapting, "_STACKED_BYTES", 2 * sum(p.nbytes for p in loaded(network(0)).params.values()))
    monkeypatch.setattr("modeldiff_jax.evidence.decision_distance._REACTION_VALUES", 5 * 2 * 12 * 3)
    together = adapting.react_together
    monkeypatch.setattr(
        "modeldiff_jax.evidence.decision_distance.react_together", lambda *args: together(*args, stacked=True)
    )
    models = [loaded(network(seed)) for seed in range(8)]
    probes = probes_for(models[0])
    one_by_one = [np.asarray(md.ddv(model, probes)) for model in models]
    with jax.log_compiles():
        vectors = md.ddv(models, probes)
    np.testing.assert_allclose(vectors, one_by_one, rtol=1e-4)
    assert sum("Finished XLA compilation of jit(<lambda>)" in r.message for r in caplog.records) == 1


def test_an_error_gives_the_place_of_the_model_that_fails():
    models = [loaded(network(seed)) for seed in range(3)]
    models[1].params["b"] = models[1].params["b"].at[0].set(np.nan)
    with pytest.raises(NonFiniteError, match="model 2 of 3"):
        md.ddv(models, probes_for(models[0]))
    with pytest.raises(NotAdaptableError, match="model 2 of 2"):
        md.ddv([mlp(0), mlp(1, shape=(5,))], probes_for(mlp(0)))


def test_no_models_is_an_error():
    with pytest.raises(InvalidInputError):
        md.ddv([], probes_for(mlp(0)))


@own_error
def test_similarity_refuses_other_probe_sets():
    model = mlp(0)
    a, b = (md.ddv(model, probes_for(model, seed=seed)) for seed in (0, 1))
    with pytest.raises(ProbeSetMismatchError, match="one probe set"):
        md.ddv_similarity(a, b)
    with pytest.raises(ProbeSetMismatchError):
        md.ddv_similarity(a, np.asarray(b).view(np.ndarray))


def test_similarity_is_the_cosine():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(size=(4, 30)), rng.uniform(size=(3, 30))
    va, vb = DDV(a, "ps"), DDV(b, "ps")
    expected = 1 - cdist(a, b, "cosine")
    np.testing.assert_allclose(md.ddv_similarity(va, vb), expected, atol=1e-6)
    assert md.ddv_similarity(va[0], vb[1]) == pytest.approx(expected[0, 1], abs=1e-6)
    np.testing.assert_allclose(md.ddv_similarity(va[0], vb), expected[0], atol=1e-6)
    np.testing.assert_allclose(md.ddv_similarity(va, vb[0]), expected[:, 0], atol=1e-6)


@pytest.mark.parametrize(("a", "b", "expected"), [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0)])
def test_models_whose_outputs_no_partner_moves(a, b, expected):
    assert md.ddv_similarity(DDV(np.full(5, a), "ps"), DDV(np.full(5, b), "ps")) == expected
