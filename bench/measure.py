"""Measures contestants in interleaved rounds, and records results with the information to repeat them."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_REST = 0.1
"""Seconds before each measurement: threads of the one before spin for a while."""


def use_cores(count: int) -> None:
    """Limits this process to `count` cores; call it before jax, torch or numpy start their threads."""
    available = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, available[:count])


def interleaved(contestants: Mapping[str, Callable[[], Any]], rounds: int, warm: bool = False) -> dict[str, Any]:
    """Runs all contestants once a round, so that a disturbance of the machine affects all of them.

    Args:
      contestants: name -> function that returns when its work is done.
      rounds: at least 1; the order rotates by one place each round.
      warm: whether all have run before; else each runs once beforehand, unmeasured.
    Returns:
      `seconds` (name -> wall time of each round), `cpu_seconds` (likewise, over all threads of this process), and
      `foreign_cores`: the number of cores that other processes kept busy in each round.
    """
    for run in () if warm else contestants.values():
        run()
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in names}
    foreign = []
    for i in range(rounds):
        busy, process, wall = _busy(), time.process_time(), time.perf_counter()
        for name in names[i % len(names) :] + names[: i % len(names)]:
            time.sleep(_REST)
            start, cpu = time.perf_counter(), time.process_time()
            contestants[name]()
            seconds[name].append(time.perf_counter() - start)
            cpu_seconds[name].append(time.process_time() - cpu)
        others = _busy() - busy - (time.process_time() - process)
        foreign.append(max(0.0, others) / (time.perf_counter() - wall))
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "foreign_cores": foreign}


def _busy() -> float:
    """Returns the seconds that all cores together have worked since the machine started."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def spread(values: list[float]) -> dict[str, float]:
    """Returns minimum, median and maximum."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def ratio(measured: Mapping[str, Any], of: str, to: str, time: str = "seconds") -> dict[str, float]:
    """Returns the spread over the rounds of the time of `of` over that of `to`: wall time, or `cpu_seconds`."""
    seconds = measured[time]
    return spread([a / b for a, b in zip(seconds[of], seconds[to], strict=True)])


def record(question: str, result: Mapping[str, Any], packages: tuple[str, ...], file: str = "", part: str = "") -> Path:
    """Writes `result` under `question` into `file` (by default this device's), with the information to repeat it.

    Each `part` of a question has its entry beside those of the other parts.
    """
    path = RESULTS / f"{file or device_name()}.json"
    content = json.loads(path.read_text()) if path.exists() else {}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    core = f"OPENBLAS_CORETYPE={core} " if (core := os.environ.get("OPENBLAS_CORETYPE")) else ""
    arguments = " ".join(Path(given).name if Path(given).is_absolute() else given for given in sys.argv[1:])
    content[f"{question}, {part}" if part else question] = {
        "command": f"{core}python -m bench.{question} {arguments}".strip(),
        "commit": commit.stdout.strip() or None,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "system": platform.system()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        **result,
    }
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(_rounded(content), indent=2) + "\n")
    return path


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def processor() -> str:
    """Returns the processor's name, by the operating system."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    family = re.search(r"cpu family\s*: (\d+)", text)
    model = re.search(r"model name\s*: (.*)", text)
    name = model[1].strip() if model else platform.processor() or platform.machine()
    return f"{name}, family {family[1]}" if family else name


def device_name() -> str:
    """Returns a file name for the accelerator, or for the processor where there is none."""
    import jax

    kind = jax.devices()[0].device_kind if jax.default_backend() != "cpu" else f"cpu {processor()}"
    return re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")
