"""Child processes under limits: they respond, and end with an error that names the limit."""

import sys

import pytest

from modeldiff_jax.errors import ChildFailedError, LimitExceededError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.runtime.isolation import Child, run

SERVE = """
import os, struct, sys, time
while head := sys.stdin.buffer.read(8):
    content = sys.stdin.buffer.read(struct.unpack("<Q", head)[0])
    exec(content.decode())
    response = content[::-1]
    sys.stdout.buffer.write(struct.pack("<Q", len(response)) + response)
    sys.stdout.buffer.flush()
"""
HARM = {
    "memory": ("x = bytearray(300 * 2**20); time.sleep(9)", {"process_bytes": 200 * 2**20}, "process_bytes"),
    "processor": ("while True: pass", {"process_cpu_seconds": 1}, "process_cpu_seconds"),
    "time": ("time.sleep(99)", {"process_seconds": 1}, "process_seconds"),
}


@pytest.fixture
def child():
    """Starts a child that runs each request and responds with its reverse; ends it."""
    started = []

    def start(limits=DEFAULT, response_bytes=2**20):
        started.append(Child(["-c", SERVE], limits, response_bytes))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_it_responds_to_one_request_after_another(child):
    process = child()
    assert [process.request(content, "x") for content in (b"1", b"'ab'", b"#" * 100_000)] == [
        b"1",
        b"'ba'",
        b"#" * 100_000,
    ]
    assert process.alive
    assert process.resident_bytes > 2**20


@pytest.mark.parametrize("kind", HARM)
def test_a_request_that_hits_a_limit_ends_it(child, kind):
    code, limits, name = HARM[kind]
    process = child(Limits(**limits))
    with pytest.raises(LimitExceededError, match=name) as caught:
        process.request(code.encode(), "the model")
    assert caught.value.where == "the model"
    assert not process.alive


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("os.abort()", "SIGABRT"),
        ("os.kill(os.getpid(), 9)", "SIGKILL"),
        ("sys.exit(3)", "status 3"),
        ("1 / 0", "status 1"),
    ],
)
def test_a_child_that_dies_is_an_error(child, code, said):
    with pytest.raises(ChildFailedError, match=said):
        child().request(code.encode(), "the model")


def test_responses_are_bounded(child):
    with pytest.raises(ChildFailedError, match="bytes"):
        child(response_bytes=10).request(b"#" * 20, "the model")


def test_a_program_runs_to_its_end():
    assert run(["-c", "print('done'); raise SystemExit(4)"], DEFAULT, 100, "x") == (4, b"done\n")


@pytest.mark.parametrize(
    ("code", "limits", "error"),
    [
        ("import time; time.sleep(99)", {"process_seconds": 1}, LimitExceededError),
        ("import os; os.abort()", {}, ChildFailedError),
        ("print('x' * 1000)", {}, ChildFailedError),
    ],
)
def test_a_program_that_does_not_is_an_error(code, limits, error):
    with pytest.raises(error):
        run(["-c", code], Limits(**limits), 100, "x")
    assert sys.executable
