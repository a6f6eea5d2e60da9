"""Describes a converted model, and checks it against the reference runtime."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from modeldiff_jax.errors import MissingExtraError, UnsupportedModelError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.array_file import read_arrays
from modeldiff_jax.models.formats import format_named
from modeldiff_jax.models.graph.ir import Graph
from modeldiff_jax.models.inputs.examples import example_inputs
from modeldiff_jax.models.load import load
from modeldiff_jax.models.model import Model
from modeldiff_jax.report import HtmlReport
from modeldiff_jax.runtime.compilation import Program
from modeldiff_jax.runtime.environment import SCHEMA_VERSION, environment
from modeldiff_jax.runtime.progress import Progress, no_progress

AGREEMENT = 1e-4
"""Largest error, as a share of an output's range, at which two float32 runtimes are said to agree."""
NOISE = 1e-6
"""Absolute error below which they agree whatever the range: onnxruntime's Sigmoid, for one, is off by 1e-7, which is
all there is of an output that is zero nearly everywhere."""

_RUNS = 5


@dataclass(frozen=True)
class Description:
    """What is known of a model without running it.

    Attributes:
      path: file or object. format: `onnx`, `flax-linen`, ... sha256: of the file.
      inputs: open inputs, each `name: dtype[shape]`. outputs: likewise. bound: inputs fixed, with their values.
      opsets: operator set version of each domain; empty for a model without a graph, as are the next four.
      nodes_in_file: operator calls in the file, nested graphs included.
      nodes: operator calls left after folding, nested graphs included.
      operators: calls left, by operator.
      static_constants: constants that stay part of the program because tracing needs their values.
      limits: bounds it was read under.
      parameters: numbers in the parameters. parameter_bytes: their size in memory.
    """

    path: str
    format: str
    sha256: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    bound: Mapping[str, Any]
    opsets: Mapping[str, int]
    nodes_in_file: int
    nodes: int
    operators: Mapping[str, int]
    static_constants: int
    limits: Mapping[str, int]
    parameters: int
    parameter_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def describe(model: Model) -> Description:
    """Counts what a model is made of."""
    conversion = model.conversion
    leaves = [np.asarray(leaf) if not hasattr(leaf, "nbytes") else leaf for leaf in jax.tree.leaves(model.params)]
    known = format_named(model.origin.format)
    domain = known.domain if known else ""
    operators = _operators(conversion.folded, domain) if conversion else Counter()
    return Description(
        path=model.origin.path,
        format=model.origin.format,
        sha256=model.origin.sha256,
        inputs=tuple(map(str, model.inputs)),
        outputs=tuple(map(str, model.outputs)),
        bound=dict(model.bound),
        opsets=dict(conversion.folded.versions) if conversion else {},
        nodes_in_file=_operators(conversion.source, domain).total() if conversion else 0,
        nodes=operators.total(),
        operators=dict(sorted(operators.items(), key=lambda entry: (-entry[1], entry[0]))),
        static_constants=len(conversion.folded.constants) if conversion else 0,
        limits=conversion.limits.to_dict() if conversion else {},
        parameters=sum(math.prod(leaf.shape) for leaf in leaves),
        parameter_bytes=sum(leaf.nbytes for leaf in leaves),
    )


@dataclass(frozen=True)
class Inspection(HtmlReport):
    """A converted model, and the check of it if there was one.

    Attributes:
      model: its description.
      check: its outputs beside the reference runtime's; None without a check.
      key: random key of the inputs.
    """

    model: Description
    check: RuntimeCheck | None
    key: int

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able data, by the schema `modeldiff_jax/report/schema.json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "convert",
            **environment(),
            "model": self.model.to_dict(),
            "check": {**self.check.to_dict(), "tolerance": AGREEMENT} if self.check else None,
            "key": self.key,
        }


def inspect_model(
    path: str | os.PathLike[str],
    *,
    check: bool = False,
    inputs: str | os.PathLike[str] | None = None,
    key: int = 0,
    limits: Limits = DEFAULT,
    progress: Progress | None = None,
) -> Inspection:
    """Converts a model file and describes the result.

    Args:
      path: the file.
      check: whether to run it beside the reference runtime, too.
      inputs: an .npz file of inputs for the check, by name; None for random ones.
      key: random key of those.
      limits: bounds on hostile input.
      progress: called before each step.
    Raises:
      ModelDiffError: the file cannot be read or converted, or the check cannot be run.
    """
    report = progress or no_progress
    report("Reading the model", 0, 1 + check)
    model, outcome = load(path, limits=limits), None
    if check:
        report("Running it beside the reference runtime", 1, 2)
        arrays = read_arrays(Path(inputs), limits, "seed_bytes") if inputs else None
        outcome = check_against_runtime(path, model, arrays, key)
    return Inspection(describe(model), outcome, key)


def _operators(graph: Graph, domain: str) -> Counter[str]:
    """Counts calls by operator; those of `domain` by their bare name."""
    return Counter(node.op if node.domain == domain else f"{node.domain}.{node.op}" for node in graph.walk())


@dataclass(frozen=True)
class OutputCheck:
    """How far one output is from the reference runtime's.

    Attributes:
      name, shape, dtype: the output as the reference runtime gives it.
      max_error: largest absolute difference; infinite where only one side is finite.
      value_range: largest minus smallest finite reference value (largest magnitude for a constant output).
      share: `max_error / value_range`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    max_error: float
    value_range: float
    share: float


@dataclass(frozen=True)
class RuntimeCheck:
    """Our outputs beside the reference runtime's on the same inputs.

    Attributes:
      runtime: its name and version.
      inputs: shape of each input used. bound: inputs fixed, with their values.
      outputs: one entry per output.
      compile_seconds: time to trace and compile ours. run_seconds: one call of ours, the shortest of several.
      runtime_seconds: one call of the reference runtime, likewise.
      agrees: every output's share of error is at most `AGREEMENT`, or its error at most `NOISE`.
    """

    runtime: str
    inputs: Mapping[str, tuple[int, ...]]
    bound: Mapping[str, Any]
    outputs: tuple[OutputCheck, ...]
    compile_seconds: float
    run_seconds: float
    runtime_seconds: float
    agrees: bool

    @property
    def ratio(self) -> float:
        """Our time for a call as a multiple of the reference runtime's."""
        return self.run_seconds / self.runtime_seconds

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "ratio": self.ratio}


def check_against_runtime(
    path: str | os.PathLike[str], model: Model, inputs: Mapping[str, Any] | None = None, key: int = 0
) -> RuntimeCheck:
    """Runs a model and onnxruntime on the same inputs.

    Args:
      path: the ONNX file `model` was loaded from.
      model: what `load` made of it, with all its inputs open.
      inputs: name -> array for every input; scalars among them are bound. `None` makes random ones.
      key: seed of the random ones.
    Raises:
      MissingExtraError: onnxruntime is not installed.
      UnsupportedModelError: onnxruntime refuses the model or the inputs.
      InvalidInputError: the inputs do not fit the model.
    """
    if inputs is None:
        examples = example_inputs(model, key)
        ready, free, bound = examples.model, examples.inputs, examples.resolved.bound
    else:
        model.arrange((), inputs)  # refuses missing, unknown and ill-shaped ones
        scalars = {s.name for s in model.inputs if s.dtype.kind in "iub" and s.shape in ((), (1,))}
        typed = {s.name: np.asarray(inputs[s.name], s.dtype) for s in model.inputs}
        bound = {name: value for name, value in typed.items() if name in scalars}
        free = {name: value for name, value in typed.items() if name not in scalars}
        ready = model.bind(**bound) if bound else model
    # Ours goes first: it applies the limits that the runtime does not have
    arrays = ready.arrange((), free)
    start = time.perf_counter()
    compiled = Program(ready.apply).lower(ready.params, *arrays).compile()
    compile_seconds = time.perf_counter() - start
    ours = compiled(ready.params, *arrays)
    run_theirs, version = _reference(path, model, {**free, **bound})
    theirs = run_theirs()
    ours_seconds, theirs_seconds = _times(
        lambda: jax.block_until_ready(compiled(ready.params, *arrays)),
        run_theirs,
    )
    checks = tuple(
        compare_output(spec.name, mine, other)
        for spec, mine, other in zip(model.outputs, ours if isinstance(ours, tuple) else (ours,), theirs, strict=True)
    )
    return RuntimeCheck(
        runtime=f"onnxruntime {version}",
        inputs={name: tuple(value.shape) for name, value in free.items()},
        bound={name: value.tolist() for name, value in bound.items()},
        outputs=checks,
        compile_seconds=compile_seconds,
        run_seconds=ours_seconds,
        runtime_seconds=theirs_seconds,
        agrees=all(check.share <= AGREEMENT or check.max_error <= NOISE for check in checks),
    )


def _reference(
    path: str | os.PathLike[str], model: Model, feed: Mapping[str, np.ndarray]
) -> tuple[Callable[[], list[Any]], str]:
    """A call of onnxruntime on `feed`. It gets bytes and never a path: it would follow hard links out of the folder."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            "The check needs onnxruntime",
            got="no such package",
            where="check_against_runtime",
            fix="pip install 'modeldiff-jax[check]'",
        ) from error
    from modeldiff_jax.models.files import read_file
    from modeldiff_jax.models.onnx.reader import self_contained

    limits = model.conversion.limits if model.conversion else DEFAULT
    file = Path(path)
    data = self_contained(
        read_file(file, limits, "model_bytes"), folder=file.absolute().parent, limits=limits, where=str(file)
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its refusals come as exceptions
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        feed = dict(feed)
        session.run(None, feed)
    except Exception as error:  # its exceptions have no common root of their own
        raise UnsupportedModelError(
            "The reference runtime must run the model", got=str(error).splitlines()[0][:300], where=str(file)
        ) from error
    return lambda: list(session.run(None, feed)), str(onnxruntime.__version__)


def _times(*calls: Callable[[], Any]) -> tuple[float, ...]:
    """The shortest of several runs of each call, taken in turn so that all see the same machine."""
    best = [math.inf] * len(calls)
    for _ in range(_RUNS):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - start)
    return tuple(best)


def compare_output(name: str, ours: Any, theirs: Any) -> OutputCheck:
    """The largest difference between two outputs, absolute and as a share of the second one's range."""
    theirs = np.asarray(theirs)
    a, b = np.asarray(ours).astype(np.float64), theirs.astype(np.float64)
    if a.shape != b.shape:
        error = math.inf
    else:
        same = (a == b) | (np.isnan(a) & np.isnan(b))  # equal infinities would give NaN as a difference
        with np.errstate(invalid="ignore"):
            gaps = np.where(same, 0.0, np.abs(a - b))
        error = float(np.max(np.where(np.isnan(gaps), np.inf, gaps), initial=0.0))
    finite = b[np.isfinite(b)]
    span = float(np.ptp(finite)) if finite.size else 0.0
    span = span or float(np.max(np.abs(finite), initial=0.0)) or 1.0
    return OutputCheck(name, theirs.shape, theirs.dtype.name, error, span, error / span)
