"""How fast is exact search, compared with the usual libraries?

    python -m bench.bench_search [--rounds 5] [--write] [NAME...]
    OPENBLAS_CORETYPE=Zen python -m bench.bench_search --write     # fixes the core type for numpy and faiss

Names: join_20000x300, search_1000_of_200000x256, largest_1000x200000, largest_20000x20000, search_1_of_1000000x256,
search_100_of_1000000x256. Each finds the ten nearest, by cosine, of random float32 vectors. The peers get
unit vectors, so that they need not normalise; scikit-learn searches by Euclidean distance, which ranks unit vectors in
the same order. The kernel certifies each row of its result; the run measures how often the indices are those of the
first peer (`agreement`). The `floor` is numpy's matrix product alone, in tiles.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

from bench.measure import interleaved, ratio, record, spread, use_cores

K = 10
Contestants = dict[str, Callable[[], Any]]


def _unit(rng: Any, n: int, c: int) -> Any:
    import numpy as np

    x = rng.standard_normal((n, c), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _best(scores: Any) -> Any:
    import numpy as np

    best = np.argpartition(-scores, K, axis=1)[:, :K]
    return np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), axis=1), 1)


def _search(queries: int, n: int, c: int, join: bool = False) -> Contestants:
    import faiss
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch
    from sklearn.neighbors import NearestNeighbors
    from usearch.index import MetricKind, search

    from modeldiff_jax.kernels import prepare, self_join, top_k

    rng = np.random.default_rng(0)
    rows = _unit(rng, n, c)
    q = rows if join else _unit(rng, queries, c)
    torch_rows, torch_q, on_device = torch.from_numpy(rows), torch.from_numpy(q), jnp.asarray(q)
    forms = {name: jax.block_until_ready(prepare(rows, precision=name)) for name in ("float32", "certified")}
    n_nearest = K + join  # the nearest row is the query itself
    block = max(1, min(len(q), 2**25 // n))

    def numpy() -> Any:
        return np.concatenate([_best(q[i : i + block] @ rows.T) for i in range(0, len(q), block)])

    def torches() -> Any:
        return [torch.topk(torch_q[i : i + block] @ torch_rows.T, n_nearest)[1] for i in range(0, len(q), block)]

    brute = NearestNeighbors(n_neighbors=n_nearest, algorithm="brute", metric="euclidean").fit(rows)

    def usearch() -> Any:
        return search(rows, q, n_nearest, MetricKind.IP, exact=True, threads=2).keys.reshape(len(q), n_nearest)

    def ours(form: str) -> Any:
        result = self_join(forms[form], K) if join else top_k(on_device, forms[form], K)
        return np.asarray(jax.block_until_ready(result)[1])

    def floor() -> None:
        for i in range(0, n, 8192):
            q @ rows[i : i + 8192].T

    return {
        "faiss": lambda: faiss.knn(q, rows, n_nearest, metric=faiss.METRIC_INNER_PRODUCT)[1][:, n_nearest - K :],
        "torch": torches,
        "numpy": numpy,
        "scikit-learn": lambda: brute.kneighbors(q, return_distance=False),
        "usearch": usearch,
        "kernel_float32": lambda: ours("float32"),
        "kernel_certified": lambda: ours("certified"),
        "floor": floor,
    }


def _largest(b: int, n: int) -> Contestants:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch

    from modeldiff_jax.kernels import largest

    scores = np.random.default_rng(0).standard_normal((b, n), dtype=np.float32)
    in_torch, on_device = torch.from_numpy(scores), jnp.asarray(scores)

    return {
        "faiss": lambda: _faiss_heap(scores),
        "torch": lambda: torch.topk(in_torch, K)[1].numpy(),
        "kernel": lambda: np.asarray(jax.block_until_ready(largest(on_device, K))[1]),
        "floor": lambda: scores.max(axis=1),
    }


def _faiss_heap(scores: Any) -> Any:
    """Selects from a table of scores by the heap that faiss's searches use."""
    import faiss
    import numpy as np

    heap = faiss.float_minheap_array_t()
    values, index = np.empty((len(scores), K), np.float32), np.empty((len(scores), K), np.int64)
    heap.nh, heap.k, heap.val, heap.ids = len(scores), K, faiss.swig_ptr(values), faiss.swig_ptr(index)
    heap.heapify()
    heap.addn(scores.shape[1], faiss.swig_ptr(scores), 0, 0, len(scores))
    heap.reorder()
    return index


QUESTIONS: dict[str, Callable[[], Contestants]] = {
    "join_20000x300": lambda: _search(20_000, 20_000, 300, join=True),
    "search_1000_of_200000x256": lambda: _search(1000, 200_000, 256),
    "largest_1000x200000": lambda: _largest(1000, 200_000),
    "largest_20000x20000": lambda: _largest(20_000, 20_000),
    "search_1_of_1000000x256": lambda: _search(1, 1_000_000, 256),
    "search_100_of_1000000x256": lambda: _search(100, 1_000_000, 256),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*QUESTIONS, []], default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without", nargs="*", default=[], help="contestants to leave out")
    parser.add_argument("--write", action="store_true", help="record the result under bench/results")
    arguments = parser.parse_args()
    use_cores(2)
    for name in arguments.names or QUESTIONS:
        contestants = {who: run for who, run in QUESTIONS[name]().items() if who not in arguments.without}
        firsts, first_calls = {}, {}
        for who, run in contestants.items():
            start = time.perf_counter()
            firsts[who] = run()
            first_calls[who] = time.perf_counter() - start
        kernels = [who for who in contestants if who.startswith("kernel")]
        peers = [who for who in contestants if who not in kernels and who != "floor"]
        measured = interleaved(contestants, arguments.rounds, warm=True)
        result = {
            "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE", "free"),
            "first_call_seconds": first_calls,
            "seconds": {who: spread(times) for who, times in measured["seconds"].items()},
            "agreement": {who: float((firsts[who] == firsts[peers[0]]).mean()) for who in kernels},
            "ratios": {
                f"{who}_to_{to}": ratio(measured, who, to) for who in kernels for to in contestants if to not in kernels
            },
            "foreign_cores": spread(measured["foreign_cores"]),
        }
        for key, value in result.items():
            print(name, key, value, flush=True)
        if arguments.write:
            part = name if result["openblas_coretype"] == "free" else f"{name}, OpenBLAS forced"
            packages = ("jax", "jaxlib", "numpy", "faiss-cpu", "torch", "scikit-learn", "usearch")
            print(record("bench_search", result, packages, part=part))


if __name__ == "__main__":
    main()
