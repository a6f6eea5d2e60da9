"""What does accuracy near zero cost? Paired cosine distances against numpy's two ways to compute them.

    python -m bench.bench_paired [--rounds 15] [--write]

`numpy` computes 1 - cos, which keeps no digit of a small distance; `numpy_chord` half the squared chord of the unit
vectors, which keeps those that rounding the unit vectors leaves. Both are in float32, like the kernel.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from bench.measure import interleaved, ratio, record, spread, use_cores

SHAPES = {"models_100_pairs_300_classes_1000": (100, 300, 1000), "pairs_100_classes_1000": (100, 1000)}


def contestants(shape: tuple[int, ...]) -> dict[str, Callable[[], Any]]:
    """Returns functions that compute the same distances, by name."""
    import jax.numpy as jnp
    import numpy as np

    from modeldiff_jax.kernels import paired_distances

    rng = np.random.default_rng(0)
    a = rng.random(shape, dtype=np.float32)
    b = a + 0.1 * rng.random(shape, dtype=np.float32)

    def dot(x: Any, y: Any) -> Any:
        return np.einsum("...c,...c->...", x, y)

    def chord() -> Any:
        d = a / np.sqrt(dot(a, a))[..., None] - b / np.sqrt(dot(b, b))[..., None]
        return dot(d, d) / 2

    on_device = jnp.asarray(a), jnp.asarray(b)
    return {
        "numpy": lambda: 1 - dot(a, b) / np.sqrt(dot(a, a) * dot(b, b)),
        "numpy_chord": chord,
        "kernel": lambda: paired_distances(*on_device).block_until_ready(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true", help="record the result under bench/results")
    arguments = parser.parse_args()
    use_cores(2)
    result: dict[str, Any] = {}
    for name, shape in SHAPES.items():
        measured = interleaved(contestants(shape), arguments.rounds)
        result[name] = {
            "seconds": {who: spread(times) for who, times in measured["seconds"].items()},
            "kernel_to_numpy": ratio(measured, "kernel", "numpy"),
            "kernel_to_numpy_chord": ratio(measured, "kernel", "numpy_chord"),
            "foreign_cores": spread(measured["foreign_cores"]),
        }
        print(name, {key: value for key, value in result[name].items() if key != "seconds"})
    if arguments.write:
        print(record("bench_paired", result, ("jax", "jaxlib", "numpy")))


if __name__ == "__main__":
    main()
