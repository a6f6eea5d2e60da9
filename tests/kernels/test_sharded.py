"""Search and self-join over eight devices, and over two processes, agree with those on one device."""

import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.kernels import self_join, top_k
from modeldiff_jax.kernels.sharded import sharded_self_join, sharded_top_k


def start(devices, *arguments):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.kernels.sharded_program", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(processes):
    for process in processes:
        out, err = process.communicate(timeout=400)
        assert process.returncode == 0, err[-4000:]
        yield out


@pytest.mark.long
def test_eight_devices():
    assert list(finish([start(8)])) == ["agreed on 8 devices\n"]


@pytest.mark.long
def test_two_processes():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    printed = finish([start(2, port, 2, rank) for rank in range(2)])  # Gloo greets on standard output too
    assert [text.splitlines()[-1] for text in printed] == ["agreed on 4 devices"] * 2


@pytest.mark.long
def test_one_device():
    mesh = Mesh(np.array(jax.devices()[:1]), ("rows",))
    rows = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    np.testing.assert_array_equal(
        sharded_top_k(rows[:3], rows, 4, mesh=mesh, axis="rows")[1], top_k(rows[:3], rows, 4)[1]
    )
    np.testing.assert_array_equal(sharded_self_join(rows, 4, mesh=mesh, axis="rows")[1], self_join(rows, 4)[1])


@pytest.mark.long
def test_gradients_are_those_of_one_device():
    mesh = Mesh(np.array(jax.devices()[:1]), ("rows",))
    rows = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    for sharded, single in (
        (lambda x: sharded_top_k(x[:3], x, 4, mesh=mesh, axis="rows"), lambda x: top_k(x[:3], x, 4)),
        (lambda x: sharded_self_join(x, 4, mesh=mesh, axis="rows"), lambda x: self_join(x, 4)),
    ):
        got, want = (jax.grad(lambda x, f=f: jnp.sum(f(x)[0] ** 2))(jnp.asarray(rows)) for f in (sharded, single))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_refuses_an_axis_that_is_not_there():
    mesh = Mesh(np.array(jax.devices()[:1]), ("rows",))
    with pytest.raises(InvalidInputError, match="axis of the mesh"):
        sharded_top_k(np.ones((2, 3)), np.ones((4, 3)), 1, mesh=mesh, axis="columns")
