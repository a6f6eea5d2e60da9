"""One program: what it costs by XLA's account, how long it takes, and how near that is to what the machine can do."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from modeldiff_jax.errors import LimitExceededError
from modeldiff_jax.profiling.machine import Machine
from modeldiff_jax.profiling.work import Work, size_in_bytes, work_of
from modeldiff_jax.runtime.compilation import Program

_MOST_RUNS, _LEAST_RUNS = 200, 3
_LEAST_ABOVE_BUDGET = 1
_OPERATORS = 8
_LOOP = re.compile(r"\bwhile\(")


@dataclass(frozen=True)
class Budget:
    """How much a profile may take.

    Attributes:
      bytes: of arguments, results and what a program needs beside them.
      seconds: one program's repeated runs; one run that is longer ends them.
      longest: seconds of one run, as far as the machine's ceilings tell beforehand.
    """

    bytes: int = 8 * 2**30
    seconds: float = 1.0
    longest: float = 120.0

    def check_bytes(self, needed: int, where: str) -> None:
        """Refuses a program before its arrays are made."""
        if needed > self.bytes:
            raise LimitExceededError(
                f"A profiled program needs at most {self.bytes:,} bytes",
                got=f"{needed:,}",
                where=where,
                fix="take smaller sizes",
            )

    def check_seconds(self, needed: float, where: str) -> None:
        """Refuses a program that would run too long even at the machine's limit."""
        if needed > self.longest:
            raise LimitExceededError(
                f"A profiled program runs for at most {self.longest:g} s",
                got=f"at least {needed:.3g} s at the machine's limit",
                where=where,
                fix="take smaller sizes",
            )


@dataclass(frozen=True)
class ProgramProfile:
    """What was found of one program.

    Attributes:
      name: for people.
      calls: how often it was called in what was profiled.
      inputs: dtype and shape of each array it takes; last the parameters, by number and bytes.
      work: operations asked for.
      moved: bytes of the inputs and parameters that results depend on, and of the results, each once.
      xla_flops, xla_bytes: by XLA's cost analysis of the compiled program, a loop's body once; None where it has none.
      xla_loops: whether the compiled program has loops, of which XLA's figures count one trip.
      temporary: bytes the compiled program needs beside arguments and results; None where XLA does not say.
      trace_seconds, lower_seconds, compile_seconds: once, apart.
      seconds: each warm run.
      memory_rate: bytes a second this device moves at this size. product_rates: operations a second, by kind.
      start_seconds: of a program that does nothing.
    """

    name: str
    calls: int
    inputs: tuple[str, ...]
    work: Work
    moved: int
    xla_flops: float | None
    xla_bytes: float | None
    xla_loops: bool
    temporary: int | None
    trace_seconds: float
    lower_seconds: float
    compile_seconds: float
    seconds: tuple[float, ...]
    memory_rate: float
    product_rates: Mapping[str, float]
    start_seconds: float

    @property
    def median(self) -> float:
        """Seconds of a run."""
        return statistics.median(self.seconds)

    @property
    def intensity(self) -> float:
        """Operations for each byte that must be moved."""
        return self.work.flops / self.moved if self.moved else 0.0

    @property
    def ideal_by(self) -> dict[str, float]:
        """What could limit the program -> seconds it would take if nothing else did."""
        products = {kind: flops / self.product_rates[kind] for kind, flops in self.work.by_kind.items()}
        ideal = {"memory": self.moved / self.memory_rate}
        if products:
            ideal[max(products, key=products.__getitem__)] = sum(products.values())
        return ideal

    @property
    def ideal(self) -> float:
        """Seconds at the roofline: what bytes and operations take at the machine's own rates, whichever is longer."""
        return max(self.ideal_by.values())

    @property
    def share(self) -> float:
        """`ideal` as a share of the measured median."""
        return self.ideal / self.median

    @property
    def limit(self) -> str:
        """The lowest roof: `memory`, a kind of product, or `start` where starting a program takes longer than both."""
        if self.start_seconds > self.ideal:
            return "start"
        return max(self.ideal_by, key=self.ideal_by.__getitem__)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        flops = self.work.flops
        operators = list(self.work.by_operator.items())[:_OPERATORS]
        return {
            "name": self.name,
            "calls": self.calls,
            "inputs": list(self.inputs),
            "flops": flops,
            "flops_by_kind": dict(self.work.by_kind),
            "open_loops": self.work.open_loops,
            "bytes": self.moved,
            "xla": {"flops": self.xla_flops, "bytes": self.xla_bytes, "loops": self.xla_loops},
            "temporary_bytes": self.temporary,
            "compile_seconds": {
                "trace": self.trace_seconds,
                "lower": self.lower_seconds,
                "compile": self.compile_seconds,
            },
            "run_seconds": {
                "min": min(self.seconds),
                "median": self.median,
                "max": max(self.seconds),
                "runs": len(self.seconds),
            },
            "flops_per_second": flops / self.median,
            "bytes_per_second": self.moved / self.median,
            "intensity": self.intensity,
            "limit": self.limit,
            "roof": {
                "bytes_per_second": self.memory_rate,
                "flops_per_second": flops / sum(flops / self.product_rates[k] for k, flops in self.work.by_kind.items())
                if flops
                else None,
            },
            "ideal_seconds": self.ideal,
            "share": self.share,
            "operators": [{"name": name, "flops": count, "share": count / flops} for name, count in operators],
        }


@dataclass(frozen=True)
class Measured:
    """A profile, and the compiled program with its arguments for running it again."""

    profile: ProgramProfile
    run: Callable[[], Any]


def measure(
    name: str,
    program: Program,
    args: tuple[Any, ...],
    machine: Machine,
    budget: Budget,
    *,
    calls: int = 1,
) -> Measured:
    """Compiles a program anew, checks it against the budget, and runs it.

    Args:
      name: for people.
      program: what to compile.
      args: all its arguments, the static ones too.
      machine: the ceilings.
      budget: what it may take.
      calls: how often it is called in what is profiled.
    Raises:
      LimitExceededError: the budget is too small.
    """
    program = program.fresh()
    start = time.perf_counter()
    traced = program.trace(*args)
    trace_seconds = time.perf_counter() - start
    work = work_of(traced.jaxpr)
    start = time.perf_counter()
    lowered = traced.lower()
    lower_seconds = time.perf_counter() - start
    data = jax.device_put(program.partition_args(args)[1])
    taken, given = size_in_bytes(data), size_in_bytes(traced.out_info)
    budget.check_bytes(taken + given, name)
    products = {kind: machine.product_rate(kind) for kind in work.by_kind}
    budget.check_seconds(sum(work.by_kind[kind] / rate for kind, rate in products.items()), name)
    start = time.perf_counter()
    compiled = lowered.compile()
    compile_seconds = time.perf_counter() - start
    memory = _memory(compiled)
    temporary = None if memory is None else int(memory.temp_size_in_bytes)
    budget.check_bytes(taken + given + (temporary or 0), name)
    # what no result depends on is no argument of the compiled program; the arguments of some devices are padded
    moved = given + (taken if memory is None else min(taken, int(memory.argument_size_in_bytes)))

    def run() -> Any:
        return jax.block_until_ready(compiled(*data))

    flops, read = _costs(compiled)
    profile = ProgramProfile(
        name=name,
        calls=calls,
        inputs=_described(data),
        work=work,
        moved=moved,
        xla_flops=flops,
        xla_bytes=read,
        xla_loops=_LOOP.search(compiled.as_text() or "") is not None,
        temporary=temporary,
        trace_seconds=trace_seconds,
        lower_seconds=lower_seconds,
        compile_seconds=compile_seconds,
        seconds=_times(run, budget),
        memory_rate=machine.memory_rate(moved),
        product_rates=products,
        start_seconds=machine.start_seconds,
    )
    return Measured(profile, run)


def _times(run: Callable[[], Any], budget: Budget) -> tuple[float, ...]:
    """Seconds of each run after a first one, which is not counted."""
    start = time.perf_counter()
    run()
    least = _LEAST_RUNS if time.perf_counter() - start < budget.seconds else _LEAST_ABOVE_BUDGET
    seconds: list[float] = []
    while len(seconds) < least or (sum(seconds) < budget.seconds and len(seconds) < _MOST_RUNS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return tuple(seconds)


def _costs(compiled: Any) -> tuple[float | None, float | None]:
    """Operations and bytes by XLA's cost analysis; None for what this backend does not say."""
    try:
        found = compiled.cost_analysis() or {}
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return None, None
    flops, read = (found.get(name, -1.0) for name in ("flops", "bytes accessed"))
    return (float(flops) if flops >= 0 else None), (float(read) if read >= 0 else None)


def _memory(compiled: Any) -> Any:
    """XLA's account of a compiled program's arrays; None where this backend has none."""
    try:
        return compiled.memory_analysis()
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return None


def _described(data: tuple[Any, ...]) -> tuple[str, ...]:
    """Arguments that are one array by type and shape, and all others, which are parameters, by number and size."""
    alone = [leaf for leaf in data if isinstance(leaf, jax.Array)]
    rest = jax.tree.leaves([leaf for leaf in data if not isinstance(leaf, jax.Array)])
    shown = [f"{leaf.dtype.name}[{', '.join(map(str, leaf.shape))}]" for leaf in alone]
    return (*shown, *([f"{len(rest)} parameters, {size_in_bytes(rest):,} bytes"] if rest else []))
