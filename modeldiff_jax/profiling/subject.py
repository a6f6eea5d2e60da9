"""Profiles a kernel, a model or a comparison."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modeldiff_jax.detection.compare import compare
from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.inputs.examples import example_inputs
from modeldiff_jax.models.load import ModelLike, load
from modeldiff_jax.models.model import Model
from modeldiff_jax.profiling.kernels import Shape, kernel_call, names
from modeldiff_jax.profiling.machine import Machine
from modeldiff_jax.profiling.programs import Budget, Measured, measure
from modeldiff_jax.profiling.result import Profile
from modeldiff_jax.profiling.traces import check_folder, write_trace
from modeldiff_jax.runtime.compilation import Program, Recorded, recording
from modeldiff_jax.runtime.progress import Progress

_LOOPS = "XLA's cost analysis counts one trip of each loop; `flops` counts all of them."
_OPEN = "Loops whose number of trips depends on the data count as one trip, so `flops` and the share are lower bounds."
_UNEVEN = "Of several branches the most expensive counts, so `flops` and the share may be too high."


def profile(
    what: ModelLike,
    other: ModelLike | None = None,
    *,
    shape: Shape | None = None,
    dtype: str = "float32",
    batch: int = 1,
    key: int = 0,
    seconds: float = 1.0,
    max_bytes: int = Budget.bytes,
    trace: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Profile:
    """Profiles a kernel, a model or a comparison: costs, times, and how near these are to the machine's limits.

    Args:
      what: the name of a kernel, or a model (`Model` or a file); `./name` is always a file.
      other: a second model, to profile the comparison of the two.
      shape: sizes of a kernel's arrays; None for usual ones.
      dtype: type of a kernel's arrays: "float32", "bfloat16" or "float16".
      batch: batch size of a model's random inputs, for a model that takes any.
      key: random key.
      seconds: time for the repeated runs of each program.
      max_bytes: most memory of one program, for arguments, results and temporary arrays.
      trace: a folder for a trace of a few runs of each program.
      progress: called before each step.
      **options: further arguments of a kernel (`metric`, `k`, `implementation`), or of `compare` for a comparison.

    Raises:
      InvalidInputError: an argument does not fit the subject.
      LimitExceededError: it would take too much memory or time.
      ModelDiffError: a model cannot be read or run.
    """
    started = time.perf_counter()
    report = progress or (lambda *_: None)
    if not seconds > 0 or batch < 1:
        raise InvalidInputError(
            "`seconds` and `batch` are above 0", got=f"seconds {seconds}, batch {batch}", where="profile"
        )
    budget, machine = Budget(bytes=max_bytes, seconds=seconds), Machine()
    folder = check_folder(trace) if trace is not None else None
    is_kernel = isinstance(what, str) and what in names()
    kind = "kernel" if is_kernel else "model" if other is None else "comparison"
    given = {
        "other": other is not None,
        "shape": shape is not None,
        "batch": batch != 1,
        **dict.fromkeys(options, True),
    }
    superfluous = [name for name, is_given in given.items() if is_given and name not in _accepted(kind, options)]
    if superfluous:
        raise InvalidInputError(
            f"A {kind} is profiled with its arguments alone",
            got=", ".join(superfluous),
            where="profile",
            fix="leave them out",
        )
    outcome: dict[str, Any] | None = None
    step_seconds: dict[str, float] = {}
    if is_kernel:
        subject, measured = _kernel(str(what), shape, dtype, key, machine, budget, options, report)
    elif other is None:
        subject, measured = _model(what, batch, key, machine, budget, report)
    else:
        subject, measured, outcome, step_seconds = _comparison(what, other, key, machine, budget, options, report)
    report("Tracing", 2, 3)
    traced = write_trace(folder, [(m.profile.name, m.run) for m in measured]) if folder else None
    programs = tuple(m.profile for m in measured)
    notes = [
        *([_LOOPS] if any(p.xla_loops for p in programs) else []),
        *([_UNEVEN] if any(p.work.uneven_branches for p in programs) else []),
        *([_OPEN] if any(p.work.open_loops for p in programs) else []),
    ]
    report("Done", 3, 3)
    return Profile(
        subject=subject,
        programs=programs,
        machine=machine.to_dict(),
        comparison=outcome,
        trace=traced,
        notes=tuple(notes),
        key=key,
        seconds={**step_seconds, "total": time.perf_counter() - started},
    )


def _accepted(kind: str, options: Mapping[str, Any]) -> set[str]:
    """Returns the arguments that a kind of subject accepts; a kernel's are checked when it is called."""
    match kind:
        case "kernel":
            return {"shape", *options}
        case "model":
            return {"batch"}
        case _:
            return {"other", *inspect.signature(compare).parameters} - {"a", "b", "key", "progress"}


def _kernel(
    name: str,
    shape: Shape | None,
    dtype: str,
    key: int,
    machine: Machine,
    budget: Budget,
    options: dict[str, Any],
    report: Progress,
) -> tuple[dict[str, Any], list[Measured]]:
    report("Making arrays", 0, 3)
    call = kernel_call(name, shape, options, dtype, key, budget)
    report("Measuring", 1, 3)
    try:  # kernels are compiled with XLA's default options, as where users call them
        measured = measure(name, Program(call.function, defaults=True), call.arrays, machine, budget)
    except (NotImplementedError, TypeError) as error:
        raise InvalidInputError(
            f"{name} can be compiled as a whole for these sizes and options",
            got=str(error).split("\n", 1)[0],
            where="profile",
            fix="choose others",
        ) from error
    shown = {"shape": "x".join(map(str, call.sizes)), "dtype": dtype, **call.options}
    return {"kind": "kernel", "name": name, "models": [], "options": shown}, [measured]


def _model(
    source: ModelLike, batch: int, key: int, machine: Machine, budget: Budget, report: Progress
) -> tuple[dict[str, Any], list[Measured]]:
    report("Reading the model", 0, 3)
    model = _loaded(source)
    if not model.traceable:
        raise InvalidInputError(
            "A profiled model is compiled by JAX", got="a black box", where=model.origin.path, fix="load it from a file"
        )
    examples = example_inputs(model, key, batch=batch)
    if batch > 1 and all(axis is None for axis in examples.resolved.batch_axes.values()):
        raise InvalidInputError(
            "A batch size is given for a model that takes any",
            got=f"inputs {'; '.join(map(str, model.inputs))}",
            where=model.origin.path,
            fix="leave the batch size out",
        )
    ready = examples.model
    report("Measuring", 1, 3)
    args = (ready.params, *ready.arrange((), examples.inputs))
    measured = measure(Path(model.origin.path).name, Program(ready.apply), args, machine, budget)
    subject = {"kind": "model", "name": model.origin.path, "models": [ready.to_dict()], "options": {"batch": batch}}
    return subject, [measured]


def _comparison(
    a: ModelLike,
    b: ModelLike,
    key: int,
    machine: Machine,
    budget: Budget,
    options: dict[str, Any],
    report: Progress,
) -> tuple[dict[str, Any], list[Measured], dict[str, Any], dict[str, float]]:
    report("Comparing", 0, 3)
    with recording() as programs:
        result = compare(_loaded(a), _loaded(b), key=key, **options)
    report("Measuring", 1, 3)
    measured: list[Measured] = []
    for entry in programs:
        name = _name(entry, [m.profile.name for m in measured])
        measured.append(measure(name, entry.program, entry.args, machine, budget, calls=entry.calls))
    measured.sort(key=lambda m: -m.profile.calls * m.profile.median)
    subject = {
        "kind": "comparison",
        "name": f"{result.target.origin.path} with {result.suspect.origin.path}",
        "models": [result.target.to_dict(), result.suspect.to_dict()],
        "options": {name: value for name, value in options.items() if isinstance(value, int | str | float | None)},
    }
    outcome = {"verdict": result.verdict, "similarity": result.similarity, "seconds": result.to_dict()["seconds"]}
    return subject, measured, outcome, {"compare": result.seconds["total"]}


def _loaded(source: ModelLike) -> Model:
    if isinstance(source, Model):
        return source
    if not isinstance(source, str | Path) or not Path(source).exists():
        raise InvalidInputError(
            "The subject of a profile is a kernel's name, a model or its file",
            got=repr(source),
            where="profile",
            fix=f"the kernels are {', '.join(names())}",
        )
    return load(source)


def _name(entry: Recorded, names: list[str]) -> str:
    """Returns the name of a program, with a number where there are several."""
    name = str(getattr(entry.program, "__qualname__", "program")).removesuffix(".__call__").lstrip("_")
    count = sum(other.split(" ")[0] == name for other in names)
    return f"{name} {count + 1}" if count else name
