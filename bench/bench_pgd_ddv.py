"""How long does the main job take, compared with PyTorch on the same weights?

The job: 100 pairs by 50 projected gradient steps on the target, then the DDV, for one plain and one depthwise network.
Both sides start at the same random points; that their DDVs agree is checked and recorded.

    python -m bench.bench_pgd_ddv [--pairs 100] [--steps 50] [--rounds 5] [--networks plain depthwise] [--cores 2]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from bench.measure import interleaved, ratio, record, spread, use_cores

EPS, STEP = 0.06, 0.01
KEY = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", nargs="+", default=["plain", "depthwise"])
    parser.add_argument("--cores", type=int, default=2, help="both sides get as many threads")
    parser.add_argument("--write", action="store_true", help="record the result under bench/results")
    options = parser.parse_args()
    use_cores(options.cores)
    report: dict[str, Any] = {"pairs": options.pairs, "steps": options.steps, "rounds": options.rounds, "networks": {}}
    for name in options.networks:
        report["networks"][name] = result = compare(name, options.pairs, options.steps, options.rounds, options.cores)
        print(f"{name}: {result['ratio']['median']:.2f} of PyTorch's time", result, flush=True)
        if options.write:
            print(record("bench_pgd_ddv", report, ("jax", "jaxlib", "torch", "numpy")))


def compare(name: str, pairs: int, steps: int, rounds: int, cores: int) -> dict[str, Any]:
    """Times both sides on one network, and PyTorch's channels-last memory format beside its default."""
    import numpy as np
    import torch

    from bench.workloads import NETWORKS, onnx_model, weights

    torch.set_num_threads(cores)
    network = NETWORKS[name]
    seeds = np.random.default_rng(1).random((pairs, *network.shape), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.onnx"
        path.write_bytes(onnx_model(network).SerializeToString())
        ours = OnJax(path, seeds)
    theirs = OnTorch(network, weights(network), seeds, ours.noise(), torch.contiguous_format)
    channels_last = OnTorch(network, weights(network), seeds, ours.noise(), torch.channels_last)
    sides = {"jax": ours, "torch": theirs, "torch, channels last": channels_last}
    first = {}
    for side, contestant in sides.items():
        start = time.perf_counter()
        contestant.run(1)
        first[side] = time.perf_counter() - start
    measured = interleaved({side: partial(c.run, steps) for side, c in sides.items()}, rounds, warm=True)
    our_ddv, their_ddv = (c.ddv for c in (ours, theirs))
    return {
        "ratio": ratio(measured, "jax", "torch"),
        "ratio to channels last": ratio(measured, "jax", "torch, channels last"),
        "ratio of cpu_seconds": ratio(measured, "jax", "torch", "cpu_seconds"),
        "seconds": {side: spread(values) for side, values in measured["seconds"].items()},
        "cpu_seconds": {side: spread(values) for side, values in measured["cpu_seconds"].items()},
        "foreign_cores": spread(measured["foreign_cores"]),
        "first_call_of_one_step_seconds": first,
        "ddv": {
            "cosine": float(np.dot(our_ddv, their_ddv) / np.linalg.norm(our_ddv) / np.linalg.norm(their_ddv)),
            "median_relative_difference": float(np.median(np.abs(our_ddv - their_ddv) / their_ddv)),
        },
    }


class OnJax:
    """The job by this package, on a model loaded from its file."""

    ddv: Any
    """DDV of the latest run."""

    def __init__(self, path: Path, seeds: Any) -> None:
        import jax

        import modeldiff_jax as md
        from modeldiff_jax.runtime.compilation import Program

        self.model, self.seeds = md.load(path), jax.numpy.asarray(seeds)
        self.react = Program(self.model.apply)

    def noise(self) -> Any:
        """Returns the start of `pgd`, in radii from the seeds."""
        import jax
        import numpy as np

        return np.asarray(jax.random.uniform(jax.random.key(KEY), self.seeds.shape, minval=-1.0, maxval=1.0))

    def run(self, steps: int) -> None:
        import jax
        import numpy as np

        from modeldiff_jax.kernels import paired_distances
        from modeldiff_jax.probes.pgd import pgd

        model = self.model
        partners = pgd(
            model.apply,
            model.params,
            self.seeds,
            key=jax.random.key(KEY),
            direction="toward",
            eps=EPS,
            step=STEP,
            n_steps=steps,
        )
        reactions = [self.react(model.params, x) for x in (self.seeds, partners)]
        self.ddv = np.asarray(paired_distances(*reactions, metric="cosine"))


class OnTorch:
    """The job by PyTorch, eagerly, with gradients of the input only."""

    ddv: Any
    """DDV of the latest run."""

    def __init__(self, network: Any, weights: Any, seeds: Any, noise: Any, memory: Any) -> None:
        import torch

        def tensor(value: Any) -> Any:
            array = torch.tensor(value)
            return array.contiguous(memory_format=memory) if array.ndim == 4 else array

        self.network = network
        self.weights = {name: tensor(value) for name, value in weights.items()}
        self.seeds, self.noise = tensor(seeds), tensor(noise)

    def conv(self, x: Any, conv: Any) -> Any:
        from torch.nn.functional import conv2d

        w, b = self.weights[conv.name + ".w"], self.weights[conv.name + ".b"]
        return conv2d(x, w, b, conv.stride, conv.taps // 2, 1, conv.groups)

    def activation(self, x: Any, kind: str) -> Any:
        from torch.nn.functional import relu, relu6

        return {"": lambda x: x, "relu": relu, "relu6": relu6}[kind](x)

    def add(self, x: Any, y: Any) -> Any:
        return x + y

    def head(self, x: Any) -> Any:
        from torch.nn.functional import linear

        return linear(x.mean((2, 3)), self.weights["head.w"], self.weights["head.b"])

    def react(self, x: Any) -> Any:
        from bench.workloads import walk

        return walk(self.network, self, x)

    def run(self, steps: int) -> None:
        import torch

        seeds, low, high = self.seeds, self.seeds - EPS, self.seeds + EPS

        def project(x: Any) -> Any:
            return torch.clamp(torch.minimum(torch.maximum(x, low), high), 0, 1)

        with torch.no_grad():
            reactions = self.react(seeds)
            target = 1000 * (reactions.mean(0) - reactions)
            x = project(seeds + EPS * self.noise)
        for _ in range(steps):
            x.requires_grad_(True)
            squared = (self.react(x) - target) ** 2
            (gradient,) = torch.autograd.grad((squared[:, 0] + 0.1 * squared[:, 1:].mean(1)).sum(), x)
            with torch.no_grad():
                x = project(x - STEP * gradient.sign())
        with torch.no_grad():
            self.ddv = (1 - torch.nn.functional.cosine_similarity(reactions, self.react(x))).numpy()


if __name__ == "__main__":
    main()
