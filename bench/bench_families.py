"""How much time do models of one family save: one compilation for all, and their work spread over the cores?

Takes M small residual networks with different weights, as ONNX models with other names or as Flax modules, and their
DDVs of 100 pairs. `family` is `md.ddv` of the list, `separate` is `md.ddv` of one after another, each compiled alone.
The first run of each, with its compilations, is separate from the later ones.

    python -m bench.bench_families [--models 16 64] [--forms onnx flax] [--rounds 5] [--cores 2]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bench.measure import interleaved, ratio, record, spread, use_cores

PAIRS = 100
WIDTHS = (8, 16, 32)
SIDE = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--forms", nargs="+", default=["onnx", "flax"], choices=["onnx", "flax"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="record the result under bench/results")
    options = parser.parse_args()
    use_cores(options.cores)
    report: dict[str, Any] = {"pairs": PAIRS, "rounds": options.rounds, "results": {}}
    for form in options.forms:
        for count in options.models:
            report["results"][f"{form}, {count} models"] = result = compare(form, count, options.rounds)
            cold, warm = result["first_run_ratio"], result["ratio"]["median"]
            print(f"{form}, {count} models: {cold:.3f} of the time at first, {warm:.2f} later", result, flush=True)
    if options.write:
        print(record("bench_families", report, ("jax", "jaxlib", "flax", "numpy")))


def compare(form: str, count: int, rounds: int) -> dict[str, Any]:
    """Times the list against one model after another, first runs and later ones."""
    import jax
    import numpy as np

    import modeldiff_jax as md
    from modeldiff_jax.models.inputs.probed_input import probed_input
    from modeldiff_jax.probes.probe_set import ProbeSet

    jax.clear_caches()
    models = {"onnx": onnx_models, "flax": flax_models}[form](count)
    separate = [replace(model, apply=copied(model.apply)) for model in models]
    space, rng = probed_input(models[0]).space, np.random.default_rng(0)
    seeds = rng.random((PAIRS, *space.shape), np.float32)
    partners = np.clip(seeds + rng.uniform(-0.05, 0.05, seeds.shape), 0, 1).astype(np.float32)
    probes = ProbeSet(seeds, partners, space, "cosine", {"method": "noise"})
    sides: dict[str, Callable[[], Any]] = {
        "family": lambda: md.ddv(models, probes),
        "separate": lambda: np.stack([md.ddv(model, probes) for model in separate]),
    }
    first, vectors = {}, {}
    for side, run in sides.items():
        start = time.perf_counter()
        vectors[side] = np.asarray(run())
        first[side] = time.perf_counter() - start
    measured = interleaved(sides, rounds, warm=True)
    return {
        "first_run_ratio": first["family"] / first["separate"],
        "first_run_seconds": first,
        "ratio": ratio(measured, "family", "separate"),
        "seconds": {side: spread(values) for side, values in measured["seconds"].items()},
        "foreign_cores": spread(measured["foreign_cores"]),
        "largest_relative_difference": float(np.max(np.abs(vectors["family"] / vectors["separate"] - 1))),
    }


def copied(apply: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the same function as a new object, which is compiled again."""
    return lambda params, *inputs: apply(params, *inputs)


def onnx_models(count: int) -> list[Any]:
    """Returns exports of one network, every second one with other names of its values."""
    from bench.workloads import Block, Conv, Network, onnx_model
    from modeldiff_jax.limits import DEFAULT
    from modeldiff_jax.models.convert import to_model
    from modeldiff_jax.models.model import Origin
    from modeldiff_jax.models.onnx import read_graph

    def network(prefix: str) -> Network:
        blocks = [Block((Conv(f"{prefix}stem", 3, WIDTHS[0], activation="relu"),))]
        for i, (inputs, outputs) in enumerate(zip(WIDTHS[:1] + WIDTHS, WIDTHS, strict=False)):
            a = Conv(f"{prefix}{i}.a", inputs, outputs, stride=2 if i else 1, activation="relu")
            shortcut = Conv(f"{prefix}{i}.s", inputs, outputs, 1, 2) if i else None
            blocks.append(Block((a, Conv(f"{prefix}{i}.b", outputs, outputs)), True, shortcut, "relu"))
        return Network("small", (3, SIDE, SIDE), tuple(blocks), 10)

    def model(seed: int) -> Any:
        graph = read_graph(onnx_model(network("again." if seed % 2 else ""), seed).SerializeToString())
        return to_model(graph, Origin(f"small-{seed}", "onnx"), DEFAULT)

    return [model(seed) for seed in range(count)]


def flax_models(count: int) -> list[Any]:
    """Returns models of one module with different variables."""
    import jax
    from flax import linen

    import modeldiff_jax as md

    class Small(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = linen.relu(linen.Conv(WIDTHS[0], (3, 3))(x))
            for i, width in enumerate(WIDTHS):
                stride = (2, 2) if i else (1, 1)
                y = linen.relu(linen.Conv(width, (3, 3), stride)(x))
                y = linen.Conv(width, (3, 3))(y)
                x = linen.relu(y + (linen.Conv(width, (1, 1), stride)(x) if i else x))
            return linen.Dense(10)(x.mean((1, 2)))

    module = Small()
    start = jax.jit(lambda seed: module.init(jax.random.key(seed), jax.numpy.zeros((1, SIDE, SIDE, 3))))
    return [md.from_flax(module, start(seed), (None, SIDE, SIDE, 3)) for seed in range(count)]


if __name__ == "__main__":
    main()
