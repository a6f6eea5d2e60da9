"""Commitments to probes."""

import numpy as np
import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.probes.commitment import commit, verify_commitment
from modeldiff_jax.probes.probe_set import ProbeSet
from modeldiff_jax.probes.space import ProbeSpace

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
