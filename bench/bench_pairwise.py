"""How fast are distances on a CPU, paired and pairwise, against the usual libraries?

    python -m bench.bench_pairwise [--rounds 15] [--write]
    OPENBLAS_CORETYPE=Zen python -m bench.bench_pairwise        # sets the core type for the OpenBLAS of numpy and faiss

Every library runs its fastest function, in float32 where it has it, on two cores. `needs` is the least work of any
method: the bytes and the multiplications, at the rates this run measures for copies and for the fastest matrix product
of the libraries here. Peers that are not installed are left out (`pip install modeldiff-jax[bench]`).
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bench.measure import interleaved, ratio, record, spread, use_cores

PAIRED = {"paired_100x300x1000": (100, 300, 1000)}
PAIRWISE = {"pairwise_600x1000": (600, 1000), "pairwise_64x200x100": (64, 200, 100)}
METRICS = ("cosine", "euclidean")
PEERS = ("numpy", "scipy", "scikit-learn", "torch", "faiss-cpu", "numkong", "simsimd")
Contestants = dict[str, Callable[[], Any]]


def imported(name: str) -> Any:
    """Returns the module, or None where it is not installed."""
    try:
        return __import__(name)
    except ImportError:
        return None


def paired(shape: tuple[int, ...], metric: str) -> Contestants:
    import jax.numpy as jnp
    import numpy as np

    from modeldiff_jax.kernels import paired_distances

    a, b = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
    on_device = jnp.asarray(a), jnp.asarray(b)
    flat = a.reshape(-1, shape[-1]), b.reshape(-1, shape[-1])

    def dot(x: Any, y: Any) -> Any:
        return np.einsum("...c,...c->...", x, y)

    def by_numpy() -> Any:
        if metric == "cosine":
            return 1 - dot(a, b) / np.sqrt(dot(a, a) * dot(b, b))
        r = a - b
        return np.sqrt(dot(r, r))

    contestants: Contestants = {
        "modeldiff": lambda: paired_distances(*on_device, metric).block_until_ready(),
        "numpy": by_numpy,
    }
    if torch := imported("torch"):
        x, y = (torch.from_numpy(v) for v in flat)
        if metric == "cosine":
            contestants["torch"] = lambda: 1 - torch.nn.functional.cosine_similarity(x, y, dim=-1)
        else:
            contestants["torch"] = lambda: torch.linalg.vector_norm(x - y, dim=-1)
    if numkong := imported("numkong"):
        run = {"cosine": numkong.angular, "euclidean": numkong.euclidean}[metric]
        contestants["numkong"] = lambda: run(*flat)
    if simsimd := imported("simsimd"):
        run_simsimd = {"cosine": simsimd.cosine, "euclidean": simsimd.euclidean}[metric]
        contestants["simsimd"] = lambda: run_simsimd(*flat)
    return contestants


def pairwise(shape: tuple[int, ...], metric: str) -> Contestants:
    import jax.numpy as jnp
    import numpy as np
    from scipy.spatial import distance
    from sklearn.metrics.pairwise import cosine_distances, euclidean_distances

    from modeldiff_jax.kernels import pairwise_distances

    a = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    models = a if a.ndim == 3 else a[None]
    on_device = jnp.asarray(a)

    def by_numpy() -> Any:
        if metric == "cosine":
            u = a / np.sqrt(np.einsum("...c,...c->...", a, a))[..., None]
            return 1 - u @ np.swapaxes(u, -1, -2)  # numpy computes half of the product of an array with itself
        s = np.einsum("...c,...c->...", a, a)
        d = a @ np.swapaxes(a, -1, -2)
        d *= -2
        d += s[..., :, None]
        d += s[..., None, :]
        np.maximum(d, 0, out=d)
        return np.sqrt(d, out=d)

    contestants: Contestants = {
        "modeldiff": lambda: pairwise_distances(on_device, None, metric).block_until_ready(),
        "modeldiff_condensed": lambda: pairwise_distances(on_device, None, metric, condensed=True).block_until_ready(),
        "numpy": by_numpy,
        "scipy": lambda: [distance.pdist(m, metric) for m in models],
        "scikit-learn": lambda: [(cosine_distances if metric == "cosine" else euclidean_distances)(m) for m in models],
    }
    if torch := imported("torch"):
        x = torch.from_numpy(a)

        def by_torch() -> Any:
            if metric == "cosine":
                u = torch.nn.functional.normalize(x, dim=-1)
                return 1 - u @ u.mT
            s = (x * x).sum(-1)
            d = torch.baddbmm(s[..., None, :].reshape(len(models), 1, -1), models_torch, models_torch.mT, alpha=-2)
            return d.add_(s.reshape(len(models), -1, 1)).clamp_(min=0).sqrt_()

        models_torch = torch.from_numpy(models)
        contestants["torch"] = by_torch
        if metric == "euclidean":
            contestants["torch_cdist"] = lambda: torch.cdist(x, x)
    if faiss := imported("faiss"):
        faiss.omp_set_num_threads(2)
        if metric == "euclidean":
            contestants["faiss"] = lambda: [np.sqrt(np.maximum(faiss.pairwise_distances(m, m), 0)) for m in models]
    for name in ("numkong", "simsimd"):
        if module := imported(name):
            its_metric = "angular" if (name, metric) == ("numkong", "cosine") else metric
            contestants[name] = lambda module=module, its_metric=its_metric: [
                module.cdist(m, m, its_metric) for m in models
            ]
    return contestants


def rates() -> dict[str, float]:
    """Measures bytes and multiplications per second: of a copy, and of the fastest product of 2048 x 2048 matrices."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    x = np.random.default_rng(0).standard_normal((2048, 2048), dtype=np.float32)
    source, target = np.ones(2**26, np.float32), np.ones(2**26, np.float32)
    on_device, product = jnp.asarray(x), jax.jit(lambda x: x @ x)
    products = {"numpy": lambda: x @ np.ascontiguousarray(x), "jax": lambda: product(on_device).block_until_ready()}
    measured = interleaved({**products, "copy": lambda: np.copyto(target, source)}, 3)["seconds"]
    best = {name: min(times) for name, times in measured.items()}
    return {
        "copy_bytes_per_second": 2 * source.nbytes / best["copy"],
        "product_flops_per_second": 2 * 2048**3 / min(best[name] for name in products),
    }


def needs(name: str, shape: tuple[int, ...], rate: dict[str, float]) -> dict[str, float]:
    """Returns the least time that bytes and multiplications take at the machine's rates, in seconds."""
    *_, n, c = shape
    models = shape[0] if len(shape) == 3 else 1
    if name.startswith("paired"):
        moved, flops = 4 * models * n * (2 * c + 1), 0.0
    else:
        moved, flops = 4 * models * n * (c + n), models * n * n * c  # half the products of all pairs, times 2
    seconds = moved / rate["copy_bytes_per_second"] + flops / rate["product_flops_per_second"]
    return {"bytes": moved, "flops": flops, "seconds": seconds}


def question(name: str, shape: tuple[int, ...], metric: str, rounds: int, rate: dict[str, float]) -> dict[str, Any]:
    contestants = (paired if name.startswith("paired") else pairwise)(shape, metric)
    start = time.perf_counter()
    contestants["modeldiff"]()
    first = time.perf_counter() - start
    for run in contestants.values():
        run()
    measured = interleaved(contestants, rounds, warm=True)
    medians = {who: statistics.median(times) for who, times in measured["seconds"].items()}
    best = min((who for who in medians if not who.startswith("modeldiff")), key=medians.__getitem__)
    return {
        "to_best_peer": {"peer": best, **ratio(measured, "modeldiff", best)},
        "least_to_least": min(measured["seconds"]["modeldiff"])
        / min(min(times) for who, times in measured["seconds"].items() if not who.startswith("modeldiff")),
        "needs": needs(name, shape, rate),
        "first_call_seconds": first,
        "seconds": {who: spread(times) for who, times in measured["seconds"].items()},
        "foreign_cores": spread(measured["foreign_cores"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="part of a question's name")
    parser.add_argument("--write", action="store_true", help="record the result under bench/results")
    arguments = parser.parse_args()
    use_cores(2)
    rate = rates()
    core = os.environ.get("OPENBLAS_CORETYPE", "")
    result: dict[str, Any] = {"openblas_core_type": core or "as detected", "rates": rate}
    for name, shape in {**PAIRED, **PAIRWISE}.items():
        for metric in METRICS:
            if arguments.only in f"{name}_{metric}":
                result[f"{name}_{metric}"] = answer = question(name, shape, metric, arguments.rounds, rate)
                print(f"{name}_{metric}", answer["to_best_peer"], f"least {answer['least_to_least']:.2f}", flush=True)
                print(
                    "   ",
                    {who: f"{1e3 * t['min']:.2f}/{1e3 * t['median']:.2f}" for who, t in answer["seconds"].items()},
                )
    if arguments.write:
        packages = ["jax", "jaxlib"]
        for peer in PEERS:
            try:
                version(peer)
                packages.append(peer)
            except PackageNotFoundError:
                continue
        part = f"OpenBLAS set to {core}" if core else ""
        print(record("bench_pairwise", result, tuple(packages), part=part))


if __name__ == "__main__":
    main()
