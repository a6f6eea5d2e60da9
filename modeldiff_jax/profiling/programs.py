"""Measures one program: its cost by XLA's account, its time, and how near that is to the device's limits."""

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
    """The most that profiling a program may take.

    Attributes:
      bytes: memory for arguments, results and temporary arrays.
      seconds: time of one program's repeated runs; one run that takes longer is the last.
      longest: seconds of one run, estimated from the machine's limits.
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
    """Costs and times of one program.

    Attributes:
      name: name for reports.
      calls: number of calls in the profiled work.
      inputs: dtype and shape of each array it takes; last the parameters, by number and bytes.
      work: operations of the program.
      moved: bytes of the inputs and parameters that results depend on, and of the results, each counted once.
      xla_flops, xla_bytes: by XLA's cost analysis of the compiled program, a loop's body once; None where it has none.
      xla_loops: whether the compiled program has loops; XLA's figures count one trip of each.
      temporary: bytes of temporary arrays of the compiled program; None where XLA has no figure.
      trace_seconds, lower_seconds, compile_seconds: time of each stage, measured once.
      seconds: time of each warm run.
      memory_rate: bytes per second that this device moves at this size.
      product_rates: operations per second, by kind of product.
      start_seconds: time of a program that does nothing.
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
        """Median seconds of a run."""
        return statistics.median(self.seconds)

    @property
    def intensity(self) -> float:
        """Operations for each byte that must be moved."""
        return self.work.flops / self.moved if self.moved else 0.0

    @property
    def ideal_by(self) -> dict[str, float]:
        """Limit (memory or a kind of product) -> seconds the program would take if it were the only one."""
        products = {kind: flops / self.product_rates[kind] for kind, flops in self.work.by_kind.items()}
        ideal = {"memory": self.moved / self.memory_rate}
        if products:
            ideal[max(products, key=products.__getitem__)] = sum(products.values())
        return ideal

    @property
    def ideal(self) -> float:
        """Seconds at the roofline: the longer of the times for bytes and for operations at the machine's rates."""
        return max(self.ideal_by.values())

    @property
    def share(self) -> float:
        """`ideal` as a share of the measured median."""
        return self.ideal / self.median

    @property
    def limit(self) -> str:
        """The lowest roof: `memory`, a kind of product, or `start` where starting a program takes longer."""
        if self.start_seconds > self.ideal:
            return "start"
        return max(self.ideal_by, key=self.ideal_by.__getitem__)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON-able data."""
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
    """Compiles a program again, checks it against the budget, and runs it.

    Args:
      name: name for reports.
      program: program to compile.
      args: all its arguments, static ones included.
      machine: limits of the device.
      budget: limits on memory and time.
      calls: number of calls in the profiled work.
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
    argument_bytes, result_bytes = size_in_bytes(data), size_in_bytes(traced.out_info)
    budget.check_bytes(argument_bytes + result_bytes, name)
    products = {kind: machine.product_rate(kind) for kind in work.by_kind}
    budget.check_seconds(sum(work.by_kind[kind] / rate for kind, rate in products.items()), name)
    start = time.perf_counter()
    compiled = lowered.compile()
    compile_seconds = time.perf_counter() - start
    memory = _memory(compiled)
    temporary = None if memory is None else int(memory.temp_size_in_bytes)
    budget.check_bytes(argument_bytes + result_bytes + (temporary or 0), name)
    # compiled programs have no arguments that no result depends on, but on some devices arguments are padded
    read_bytes = argument_bytes if memory is None else min(argument_bytes, int(memory.argument_size_in_bytes))
    moved = result_bytes + read_bytes

    def run() -> Any:
        return jax.block_until_ready(compiled(*data))

    flops, accessed = _costs(compiled)
    profile = ProgramProfile(
        name=name,
        calls=calls,
        inputs=_described(data),
        work=work,
        moved=moved,
        xla_flops=flops,
        xla_bytes=accessed,
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
    """Returns the seconds of each run after a first one, which is not counted."""
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
    """Returns operations and bytes by XLA's cost analysis; None for figures that this backend lacks."""
    try:
        costs = compiled.cost_analysis() or {}
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return None, None
    flops, accessed = (costs.get(name, -1.0) for name in ("flops", "bytes accessed"))
    return (float(flops) if flops >= 0 else None), (float(accessed) if accessed >= 0 else None)


def _memory(compiled: Any) -> Any:
    """Returns XLA's account of a compiled program's arrays; None where this backend has none."""
    try:
        return compiled.memory_analysis()
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return None


def _described(data: tuple[Any, ...]) -> tuple[str, ...]:
    """Describes arguments that are one array by type and shape, and all parameters together by number and size."""
    arrays = [leaf for leaf in data if isinstance(leaf, jax.Array)]
    parameters = jax.tree.leaves([leaf for leaf in data if not isinstance(leaf, jax.Array)])
    shown = [f"{leaf.dtype.name}[{', '.join(map(str, leaf.shape))}]" for leaf in arrays]
    return (*shown, *([f"{len(parameters)} parameters, {size_in_bytes(parameters):,} bytes"] if parameters else []))
