"""What can be profiled -> a `Profile`."""

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
_OPEN = "Loops whose trips only the data decide count as one trip, so `flops` and the share are lower bounds."
_UNEVEN = "Of branches that differ, the dearest counts: `flops` and the share may be higher than what was done."


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
    """What a kernel, a model or a comparison costs, how long it takes, and how near that is to the machine's limit.

    Args:
      what: the name of a kernel, or a model (`Model` or a file); `./name` is always a file.
      other: a second model: the comparison of the two is profiled.
      shape: sizes of a kernel's arrays; None for usual ones.
      dtype: of a kernel's arrays: "float32", "bfloat16" or "float16".
      batch: of a model's random inputs, where it is open.
      key: random key.
      seconds: how long each program is run, again and again, for its time.
      max_bytes: which no program may need more of, for arguments, results and what it needs beside.
      trace: a folder for a trace of a few runs of each program.
      progress: called before each step.
      **options: of a kernel its own arguments (`metric`, `k`, `implementation`); of a comparison those of `compare`.

    Raises:
      InvalidInputError: an argument does not fit what is profiled.
      LimitExceededError: it would take too much memory or time.
      ModelDiffError: a model cannot be read or run.
    """
    started = time.perf_counter()
    tell = progress or (lambda *_: None)
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
    superfluous = [name for name, is_given in given.items() if is_given and name not in _taken(kind, options)]
    if superfluous:
        raise InvalidInputError(
            f"A {kind} is profiled with arguments that are its own",
            got=", ".join(superfluous),
            where="profile",
            fix="leave them out",
        )
    outcome: dict[str, Any] | None = None
    more: dict[str, float] = {}
    if is_kernel:
        subject, measured = _kernel(str(what), shape, dtype, key, machine, budget, options, tell)
    elif other is None:
        subject, measured = _model(what, batch, key, machine, budget, tell)
    else:
        subject, measured, outcome, more = _comparison(what, other, key, machine, budget, options, tell)
    tell("Tracing", 2, 3)
    traced = write_trace(folder, [(m.profile.name, m.run) for m in measured]) if folder else None
    programs = tuple(m.profile for m in measured)
    notes = [
        *([_LOOPS] if any(p.xla_loops for p in programs) else []),
        *([_UNEVEN] if any(p.work.uneven_branches for p in programs) else []),
        *([_OPEN] if any(p.work.open_loops for p in programs) else []),
    ]
    tell("Done", 3, 3)
    return Profile(
        subject=subject,
        programs=programs,
        machine=machine.to_dict(),
        comparison=outcome,
        trace=traced,
        notes=tuple(notes),
        key=key,
        seconds={**more, "total": time.perf_counter() - started},
    )


def _taken(kind: str, options: Mapping[str, Any]) -> set[str]:
    """The arguments with which such a thing is profiled; a kernel checks its own."""
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
    tell: Progress,
) -> tuple[dict[str, Any], list[Measured]]:
    tell("Making arrays", 0, 3)
    call = kernel_call(name, shape, options, dtype, key, budget)
    tell("Measuring", 1, 3)
    try:  # as kernels are compiled where they are called
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
    source: ModelLike, batch: int, key: int, machine: Machine, budget: Budget, tell: Progress
) -> tuple[dict[str, Any], list[Measured]]:
    tell("Reading the model", 0, 3)
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
    tell("Measuring", 1, 3)
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
    tell: Progress,
) -> tuple[dict[str, Any], list[Measured], dict[str, Any], dict[str, float]]:
    tell("Comparing", 0, 3)
    with recording() as found:
        result = compare(_loaded(a), _loaded(b), key=key, **options)
    tell("Measuring", 1, 3)
    measured: list[Measured] = []
    for entry in found:
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
            "What is profiled is a kernel's name, a model or its file",
            got=repr(source),
            where="profile",
            fix=f"the kernels are {', '.join(names())}",
        )
    return load(source)


def _name(entry: Recorded, taken: list[str]) -> str:
    """What a program is called, with a number where there are several."""
    name = str(getattr(entry.program, "__qualname__", "program")).removesuffix(".__call__").lstrip("_")
    count = sum(other.split(" ")[0] == name for other in taken)
    return f"{name} {count + 1}" if count else name
