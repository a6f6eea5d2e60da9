"""A forked process raises before JAX hangs in it."""

import subprocess
import sys

import pytest

PROGRAM = """
import multiprocessing, sys, warnings
import numpy as np
import modeldiff_jax as md
from modeldiff_jax import kernels
from modeldiff_jax.models.callable import from_callable
from modeldiff_jax.errors import ForkedProcessError

warnings.simplefilter("ignore")  # of JAX and of Python, about the fork
x = np.ones((3, 4), np.float32)
model = lambda: from_callable(lambda x: x * 2, (None, 4), traceable=True)
uses = {
    "a model": lambda: ready(x),
    "a new model": lambda: from_callable(lambda p, x: x * p, (None, 4), traceable=True, params=np.ones(4)),
    "a kernel": lambda: kernels.cosine_similarity(x),
    "making probes": lambda: md.make_probes(ready, n_pairs=2, n_steps=1),
    "a comparison": lambda: md.compare(ready, ready, n_pairs=2, n_steps=1),
}

def child(use):
    try:
        uses[use]()
    except ForkedProcessError as error:
        sys.exit(7 if "spawn" in error.fix else 1)
    sys.exit(0)

def exit_code(use):
    process = multiprocessing.get_context("fork").Process(target=child, args=(use,))
    process.start()
    process.join(30)
    process.kill()
    return process.exitcode

ready = model()
if sys.argv[1] == "before":  # JAX has traced, but run nothing
    assert exit_code("a model") == 0, "before"
else:
    ready(x)
    codes = {use: exit_code(use) for use in uses}
    assert set(codes.values()) == {7}, codes
    ready(np.ones((5, 4), np.float32))  # the parent goes on
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_fork_after_jax_has_run_is_an_error_and_one_before_is_none(when):
    done = subprocess.run([sys.executable, "-c", PROGRAM, when], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
