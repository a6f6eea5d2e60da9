"""Limits of the device: measured once, for any type, never below other measurements."""

import pytest

from modeldiff_jax.profiling import machine
from modeldiff_jax.profiling.machine import ALWAYS, DEFAULT, Machine


@pytest.mark.parametrize("kind", [*ALWAYS, DEFAULT, "float16", "int8"])
def test_every_kind_of_product_has_a_rate(kind):
    device = Machine()
    assert device.product_rate(kind) > 0
    assert set(device.products) == {*ALWAYS, kind}


def test_a_ceiling_is_measured_once(monkeypatch):
    device = Machine()
    before = device.to_dict(), device.memory_rate(5000)
    monkeypatch.setattr(machine, "_copy", pytest.fail)
    monkeypatch.setattr(machine, "_product", pytest.fail)
    monkeypatch.setattr(machine, "_shortest", pytest.fail)
    assert (device.to_dict(), device.memory_rate(4800)) == before


@pytest.mark.parametrize("moved", [0, 1, 10_000, 2**40])
def test_arrays_in_a_cache_may_be_faster_than_a_large_copy_and_none_is_slower(moved):
    device = Machine()
    assert device.memory_rate(moved) >= device.copy_rate > 0


def test_larger_products_are_tried_until_one_takes_long_enough(monkeypatch):
    seconds = iter([1e-3, 1e-3, 1.0])
    monkeypatch.setattr(machine, "_shortest", lambda call, runs: next(seconds))
    monkeypatch.setattr(machine, "_LARGEST_PRODUCT", 1024)
    assert Machine().product_rate("float32") == 2 * 128**3 / 1e-3  # of 64, 128 and 256, which took a second
    assert next(seconds, None) is None
