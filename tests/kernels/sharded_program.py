"""Run in a process of its own by test_sharded: `python -m tests.kernels.sharded_program [PORT PROCESSES RANK]`.

Searches and joins over all devices, and compares with one device.
"""

import sys

import jax
import numpy as np
from jax.sharding import Mesh

if len(sys.argv) > 1:
    port, processes, rank = map(int, sys.argv[1:])
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, rank)

from modeldiff_jax.kernels import self_join, top_k
from modeldiff_jax.kernels.sharded import sharded_self_join, sharded_top_k


def whole(x):
    from jax.experimental.multihost_utils import process_allgather

    return np.asarray(process_allgather(x, tiled=True)) if jax.process_count() > 1 else np.asarray(x)


def main():
    mesh = Mesh(np.array(jax.devices()), ("rows",))
    rng = np.random.default_rng(0)
    for n, k, metric in ((203, 5, "cosine"), (64, 9, "euclidean"), (13, 12, "cosine")):
        if jax.process_count() > 1:
            n -= n % jax.device_count()
            k = min(k, n - 1)
        rows = rng.standard_normal((n, 6)).astype(np.float32)
        rows[n // 2 :: 3], rows[::9] = rows[1], 0  # ties and zero vectors
        queries = rng.standard_normal((7, 6)).astype(np.float32)
        values, index = sharded_top_k(queries, rows, k, metric, mesh=mesh, axis="rows")
        want_values, want = top_k(queries, rows, k, metric)
        np.testing.assert_array_equal(whole(index.addressable_data(0))[:7], want)
        np.testing.assert_allclose(whole(values.addressable_data(0))[:7], want_values, atol=1e-6)
        values, index = (whole(x) for x in sharded_self_join(rows, k, metric, mesh=mesh, axis="rows"))
        want_values, want = self_join(rows, k, metric=metric)
        np.testing.assert_array_equal(index, want)
        np.testing.assert_allclose(values, want_values, atol=1e-6)
    print("agreed on", jax.device_count(), "devices")


main()
