"""The benchmark's networks are a user's code, written for JAX's default promotion."""

import pytest


@pytest.fixture(autouse=True)
def strict_promotion():
    return
