"""Dispatch: the first variant that serves the call; one requested by name never falls back."""

import gc
import weakref

import pytest

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels.dispatch import run


def refuses(x):
    raise NotImplementedError(f"no device for {x}")


def doubles(x):
    return 2 * x


def negates(x):
    return -x


def breaks(x):
    raise ZeroDivisionError(x)


def test_the_first_that_serves_the_call_runs():
    assert run("k", {"gpu": refuses, "xla": doubles, "reference": negates}, None, 3) == 6


def test_a_name_is_obeyed():
    assert run("k", {"xla": doubles, "reference": negates}, "reference", 3) == -3


def test_a_named_variant_never_falls_back():
    with pytest.raises(NotImplementedError, match="no device for 3"):
        run("k", {"gpu": refuses, "xla": doubles}, "gpu", 3)


def test_other_errors_are_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        run("k", {"gpu": breaks, "xla": doubles}, None, 3)


def test_when_none_serves_every_reason_is_raised_in_order():
    with pytest.raises(ExceptionGroup, match="no variant of k") as raised:
        run("k", {"gpu": refuses, "tpu": refuses}, None, 3)
    assert [str(reason) for reason in raised.value.exceptions] == ["no device for 3"] * 2
    notes = [reason.__notes__ for reason in raised.value.exceptions]
    assert notes == [["variant 'gpu' of k"], ["variant 'tpu' of k"]]


def test_a_refusal_does_not_keep_the_arguments_alive():
    class Database(set):
        pass

    def chained(x):
        try:
            raise ImportError("no pallas")
        except ImportError as missing:
            raise NotImplementedError("no device") from missing

    database = Database()
    reference = weakref.ref(database)
    gc.disable()  # reference counting alone must free it
    try:
        assert run("k", {"gpu": chained, "xla": len}, None, database) == 0
        del database
        assert reference() is None
    finally:
        gc.enable()


def test_an_unknown_name_lists_the_names():
    with pytest.raises(InvalidInputError, match=r"None or one of gpu, xla\. Got: 'cuda'\. Where: k\."):
        run("k", {"gpu": refuses, "xla": doubles}, "cuda", 3)
