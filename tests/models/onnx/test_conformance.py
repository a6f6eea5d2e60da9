"""ONNX's own backend test suite: all of it passes but for the cases named in `not_passing.py`."""

import pytest
from onnx.backend.base import Backend, BackendRep

from bench.onnx_suite import KINDS, cases
from modeldiff_jax.models.onnx import backend
from tests.models.onnx.not_passing import NOT_PASSING

LISTED = {name for names in NOT_PASSING.values() for name in names}
SIZES = {"node": 1880, "simple": 23, "pytorch-operator": 35, "pytorch-converted": 82}


def first_line(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


LARGE = {"node", "pytorch-converted"}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.long] * (kind in LARGE)) for kind in KINDS])
def test_exactly_the_listed_cases_do_not_pass(kind):
    result = cases()[kind]
    assert len(result) >= SIZES[kind]
    failures = {}
    for name, case in result.items():
        try:
            case.run()
        except Exception as error:
            failures[name] = first_line(error)
    listed = LISTED & result.keys()
    unexpected = [f"{name}: {why}" for name, why in failures.items() if name not in listed]
    passing = sorted(listed - failures.keys())
    assert not unexpected, "these no longer pass:\n" + "\n".join(unexpected)
    assert not passing, "these pass now; take them out of not_passing.py:\n" + "\n".join(passing)


def test_every_listed_case_is_one_and_listed_once():
    names = [name for listed in NOT_PASSING.values() for name in listed]
    assert len(names) == len(set(names))
    known = [name for kind in KINDS for name in cases()[kind]]
    assert set(names) <= set(known)
    assert len(known) == len(set(known))


def test_the_module_has_the_interface_of_onnx():
    assert issubclass(backend.JaxBackend, Backend)
    assert issubclass(backend.JaxBackendRep, BackendRep)
    for name in ("is_compatible", "prepare", "run_model", "run_node", "supports_device"):
        assert getattr(backend, name) == getattr(backend.JaxBackend, name)
