"""Commitments to probes."""

from dataclasses import replace

import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.inputs.space import ProbeSpace
from modeldiff_jax.probes.commitment import commit, drawn_key, verify_commitment
from modeldiff_jax.probes.make import make_probes
from modeldiff_jax.probes.probe_set import ProbeSet, load_probes
from modeldiff_jax.probes.remake import made_alike, remake_probes
from tests.helpers.jax_models import mlp, perturbed

SPACE = ProbeSpace("generic", (4,), "float32", 0.0, 1.0)


def probes(seed):
    x = np.random.default_rng(seed).random((2, 6, 4), np.float32)
    return ProbeSet(x[0], x[1], SPACE)


def test_opens_to_what_was_committed_and_nothing_else():
    made = commit(probes(0), "ab")
    assert verify_commitment(made.digest, made.nonce, probes(0), "ab")
    assert not verify_commitment(made.digest, made.nonce, probes(1), "ab")
    assert not verify_commitment(made.digest, made.nonce, probes(0), "ac")
    assert not verify_commitment(made.digest, commit(probes(0)).nonce, probes(0), "ab")


def test_two_commitments_to_the_same_probes_look_unrelated():
    assert commit(probes(0)).digest != commit(probes(0)).digest


@pytest.mark.parametrize("nonce", ["", "0" * 63, "g" * 64])
def test_refuses_a_nonce_that_is_none(nonce):
    with pytest.raises(InvalidInputError):
        verify_commitment("pc1-", nonce, probes(0))


def crafted(honest):
    """Other partners within the same ball, under the honest set's recipe."""
    away = np.random.default_rng(0).choice([-1, 1], honest.seeds.shape) * honest.origin["eps"]
    return replace(honest, partners=np.clip(honest.seeds + away, 0, 1).astype(np.float32))


def half_of_them_mixed_up(honest):
    return replace(honest, partners=np.concatenate([honest.partners[:4], honest.partners[4:][::-1]]))


def other_seeds(honest):
    return replace(honest, seeds=honest.seeds[::-1], partners=honest.partners[::-1])


def another_key(honest):
    return replace(honest, origin={**honest.origin, "key": 1})


def test_what_the_target_makes_is_accepted_and_only_on_the_target():
    target, seeds = mlp(0), np.random.default_rng(1).random((20, 8, 8, 1), np.float32)
    honest = make_probes(target, seeds=seeds, n_pairs=8, n_steps=2, key=5)
    made = commit(honest, target.origin.content_sha256)
    assert verify_commitment(made.digest, made.nonce, honest, target=target, seeds=seeds)
    assert not verify_commitment(made.digest, made.nonce, honest, target=target, seeds=seeds[::-1])
    assert not verify_commitment(made.digest, made.nonce, honest, target=mlp(1), seeds=seeds)
    assert not verify_commitment(made.digest, made.nonce, honest, "ab", target=target, seeds=seeds)
    for model in (mlp(1), perturbed(target, 0.5)):  # committed to as well, but the pairs were made on another model
        made = commit(honest, model.origin.content_sha256)
        assert not verify_commitment(made.digest, made.nonce, honest, target=model, seeds=seeds)


@pytest.mark.parametrize("forge", [crafted, half_of_them_mixed_up, other_seeds, another_key])
def test_a_forged_set_is_refused_though_it_was_committed_to(forge):
    target = mlp(0)
    forged = forge(make_probes(target, n_pairs=8, n_steps=2))
    made = commit(forged, target.origin.content_sha256)
    assert verify_commitment(made.digest, made.nonce, forged, target.origin.content_sha256)
    assert not verify_commitment(made.digest, made.nonce, forged, target=target)


@pytest.mark.parametrize("method", ["pgd", "search"])
def test_a_set_is_made_again_by_its_recipe(method, tmp_path):
    target = mlp(0)
    honest = make_probes(target, n_pairs=8, method=method, n_steps=2, key=3)
    honest.save(tmp_path / "probes.npz")
    again = remake_probes(load_probes(tmp_path / "probes.npz"), target)
    assert again.probe_set_id == honest.probe_set_id
    other = remake_probes(honest, target, key=drawn_key("pc1-ab", "round 1"))
    assert not made_alike(honest, other)


def test_another_devices_rounding_is_forgiven():
    target = mlp(0)
    honest = make_probes(target, n_pairs=8, n_steps=2)
    assert made_alike(honest, make_probes(perturbed(target, 1e-6), n_pairs=8, n_steps=2))


def test_a_set_without_a_recipe_cannot_be_made_again():
    with pytest.raises(InvalidInputError, match="has a recipe"):
        remake_probes(probes(0), mlp(0))


def test_a_drawn_key_is_that_of_its_commitment_and_beacon():
    keys = {drawn_key(digest, beacon) for digest in ("pc1-ab", "pc1-ac") for beacon in ("1", "2")}
    assert len(keys) == 4
    assert all(0 <= key < 2**62 for key in keys)
    assert drawn_key("pc1-ab", "1") in keys
