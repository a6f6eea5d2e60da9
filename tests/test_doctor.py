"""The doctor reports installed and missing packages and how to install them, and survives broken installations."""

import shlex
import sys
from importlib.metadata import version

import pytest

from modeldiff_jax import doctor
from modeldiff_jax.runtime.environment import installed


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("MODELDIFF_CACHE_DIR", "")


@pytest.fixture
def without(monkeypatch):
    """Simulates distributions that are not installed."""

    def hide(*names):
        monkeypatch.setattr(doctor, "installed", lambda name: None if name in names else installed(name))

    return hide


def extra(record, name):
    return next(entry for entry in record["extras"] if entry["name"] == name)


def test_this_machine_is_sound():
    record = doctor.diagnose()
    assert record["ok"], record["problems"]
    assert {p["name"]: p["version"] for p in record["packages"]}["jax"] == version("jax")
    assert record["devices"][0]["platform"] == "cpu"
    assert record["kernels"]["folder"].endswith("kernels")
    assert record["cache"]["state"] == "off"


def test_every_extra_of_the_package_is_listed_with_its_purpose():
    names = {entry["name"] for entry in doctor.diagnose()["extras"]}
    assert names == {"bench", "check", "cuda12", "cuda13", "tpu", "dev", "docs", "fuzz", "roundtrip"}
    assert all(entry["needed_for"] for entry in doctor.diagnose()["extras"])


def test_a_missing_extra_comes_with_the_line_that_installs_it(without):
    without("onnxruntime", "jax-cuda12-plugin")
    record = doctor.diagnose()
    assert record["ok"]
    check = extra(record, "check")
    assert check["missing"] == ["onnxruntime"]
    assert shlex.split(check["install"]) == [sys.executable, "-m", "pip", "install", "onnxruntime>=1.20"]
    assert "jax[cuda12]" in extra(record, "cuda12")["install"]


def test_a_missing_requirement_is_a_problem(without):
    without("onnx")
    record = doctor.diagnose()
    assert not record["ok"]
    assert any("onnx>=" in problem for problem in record["problems"])


def test_a_jax_that_does_not_start_is_a_problem_and_not_a_crash(monkeypatch):
    import jax

    monkeypatch.setattr(jax, "devices", lambda: (_ for _ in ()).throw(RuntimeError("no backend")))
    record = doctor.diagnose()
    assert not record["ok"]
    assert any("no backend" in problem for problem in record["problems"])
    assert record["devices"] == []


def test_a_broken_kernels_link_is_a_problem_and_not_a_crash(monkeypatch):
    import modeldiff_jax

    monkeypatch.delattr(modeldiff_jax, "kernels", raising=False)
    monkeypatch.setitem(sys.modules, "modeldiff_jax.kernels", None)
    record = doctor.diagnose()
    assert not record["ok"]
    assert any("symlinks" in problem for problem in record["problems"])


def test_a_source_tree_that_was_not_installed_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "requires", lambda _: (_ for _ in ()).throw(doctor.PackageNotFoundError("x")))
    record = doctor.diagnose()
    assert any("pip install -e ." in problem for problem in record["problems"])
