"""How do time and memory of exact search grow with the number of rows, beside faiss?

    python -m bench.bench_growth [--rounds 3] [--sizes 10000 100000 1000000] [--write]

Search is of the ten nearest of 100 queries, by cosine, in N x 256 random float32 vectors; join is of the ten nearest
others of each row, for N up to 30,000. Every size runs in a separate process, so that `peak_bytes` (the most memory
the process ever held, minus the memory after its imports) is of this size and this contestant alone. The rows
themselves, in numpy, count: the least possible is N x 256 x 4 bytes, and twice that for a library that keeps a copy.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from bench.measure import record, spread, use_cores

WIDTH, QUERIES, K = 256, 100, 10
SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
LARGEST_JOIN = 30_000


def contestant(who: str, question: str, n: int) -> tuple[Callable[[], Any], int]:
    """Returns the function to time, and the memory held before there were any rows."""
    import numpy as np

    rng = np.random.default_rng(0)

    def unit(count: int) -> Any:
        x = rng.standard_normal((count, WIDTH), dtype=np.float32)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        return x

    if who == "faiss":
        import faiss

        faiss.omp_set_num_threads(2)
        before = _peak()
        rows = unit(n)
        queries = rows if question == "join" else unit(QUERIES)
        index = faiss.IndexFlatIP(WIDTH)
        index.add(rows)
        return lambda: index.search(queries, K + (question == "join")), before

    import jax

    from modeldiff_jax.kernels import prepare, self_join, top_k

    jax.block_until_ready(jax.numpy.zeros(1))
    before = _peak()
    rows = unit(n)
    queries = None if question == "join" else jax.numpy.asarray(unit(QUERIES))
    prepared = jax.block_until_ready(prepare(rows))
    if queries is None:
        return lambda: jax.block_until_ready(self_join(prepared, K)), before
    return lambda: jax.block_until_ready(top_k(queries, prepared, K)), before


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def one(who: str, question: str, n: int, rounds: int) -> dict[str, Any]:
    """Measures first call, later calls and memory of one contestant at one size, in a separate process."""
    use_cores(2)
    run, before = contestant(who, question, n)
    start = time.perf_counter()
    run()
    first = time.perf_counter() - start
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return {"first_call_seconds": first, "seconds": spread(seconds), "peak_bytes": _peak() - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--write", action="store_true", help="record the result under bench/results")
    parser.add_argument(
        "--one", nargs=3, metavar=("WHO", "QUESTION", "N"), help="measure this alone and print it as JSON"
    )
    arguments = parser.parse_args()
    if arguments.one:
        who, question, n = arguments.one
        print(json.dumps(one(who, question, int(n), arguments.rounds)))
        return
    result: dict[str, Any] = {"width": WIDTH, "queries": QUERIES, "k": K, "rounds": arguments.rounds}
    for question in ("search", "join"):
        result[question] = {}
        for n in arguments.sizes:
            if question == "join" and n > LARGEST_JOIN:
                continue
            result[question][str(n)] = by_contestant = {}
            for who in ("modeldiff", "faiss"):
                command = [sys.executable, "-m", "bench.bench_growth", "--rounds", str(arguments.rounds), "--one"]
                done = subprocess.run([*command, who, question, str(n)], capture_output=True, text=True, check=True)
                by_contestant[who] = json.loads(done.stdout.splitlines()[-1])
                print(question, n, who, by_contestant[who], flush=True)
    if arguments.write:
        print(record("bench_growth", result, ("jax", "jaxlib", "numpy", "faiss-cpu")))


if __name__ == "__main__":
    main()
