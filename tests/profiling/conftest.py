"""Ceilings measured on small arrays: what is tested are laws, not rates."""

import pytest

from modeldiff_jax.profiling import machine


@pytest.fixture(autouse=True)
def quick_ceilings(monkeypatch):
    monkeypatch.setattr(machine, "_LARGE_COPY", 2**20)
    monkeypatch.setattr(machine, "_LARGEST_COPY", 2**21)
    monkeypatch.setattr(machine, "_SMALL_PRODUCT", 64)
    monkeypatch.setattr(machine, "_LARGEST_PRODUCT", 64)
