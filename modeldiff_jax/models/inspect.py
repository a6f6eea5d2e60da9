"""Describes a converted model, and checks its outputs against the reference runtime's."""

from __future__ import annotations

import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from modeldiff_jax.errors import MissingExtraError, UnsupportedModelError
from modeldiff_jax.limits import DEFAULT, Limits
from modeldiff_jax.models.agreement import OutputCheck, compare_output
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

_RUNS = 5
_QUANTISED = re.compile(r"Quantize|^QLinear|^QGemm|Integer$")


@dataclass(frozen=True)
class Description:
    """A model's interface, operators and sizes, known without running it.

    Attributes:
      path: file or object. format: `onnx`, `flax-linen`, ... sha256: of the file.
      inputs: inputs that are not fixed, each `name: dtype[shape]`. outputs: likewise. bound: fixed inputs, with values.
      opsets: operator set version of each domain; empty for a model without a graph, as are the next four.
      nodes_in_file: number of nodes in the file, nested graphs included.
      nodes: number of nodes after folding, nested graphs included.
      operators: number of nodes after folding, by operator.
      static_constants: number of constants that stay part of the program because tracing needs their values.
      limits: limits it was read under.
      parameters: number of elements of all parameters. parameter_bytes: their size in memory.
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
        """Returns the description as JSON-able data."""
        return asdict(self)


def describe(model: Model) -> Description:
    """Counts a model's nodes, constants and parameters, and lists its inputs and outputs."""
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
    """The description of a converted model, and its check against the reference runtime if one was made.

    Attributes:
      model: its description.
      check: comparison of its outputs with the reference runtime's; None without a check.
      key: random key of the inputs.
    """

    model: Description
    check: RuntimeCheck | None
    key: int

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as JSON-able data, by the schema `modeldiff_jax/report/schema.json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "convert",
            **environment(),
            "model": self.model.to_dict(),
            "check": self.check.to_dict() if self.check else None,
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
      check: whether to compare its outputs with the reference runtime's.
      inputs: an .npz file of inputs for the check, by name; None for random ones.
      key: random key of random inputs.
      limits: limits on hostile input.
      progress: called before each step.
    Raises:
      ModelDiffError: the file cannot be read or converted, or the check cannot be run.
    """
    report = progress or no_progress
    report("Reading the model", 0, 1 + check)
    model, outcome = load(path, limits=limits), None
    if check:
        report("Comparing it with the reference runtime", 1, 2)
        arrays = read_arrays(Path(inputs), limits, "seed_bytes") if inputs else None
        outcome = check_against_runtime(path, model, arrays, key)
    return Inspection(describe(model), outcome, key)


def _operators(graph: Graph, domain: str) -> Counter[str]:
    """Counts nodes by operator; operators of `domain` are listed without their domain."""
    return Counter(node.op if node.domain == domain else f"{node.domain}.{node.op}" for node in graph.walk())


@dataclass(frozen=True)
class RuntimeCheck:
    """The comparison of a model's outputs with the reference runtime's on the same inputs.

    Attributes:
      runtime: name and version of the reference runtime. Models with quantised operators are run without its graph
        optimisations, which round in other places than the file says.
      inputs: shape of each input used. bound: fixed inputs, with their values.
      outputs: one entry per output.
      compile_seconds: time to trace and compile the model. run_seconds: time of a call, the shortest of several.
      runtime_seconds: time of a call of the reference runtime, likewise, with its optimisations.
      agrees: whether every output agrees.
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
        """The model's time for a call as a multiple of the reference runtime's."""
        return self.run_seconds / self.runtime_seconds

    def to_dict(self) -> dict[str, Any]:
        """Returns the check as JSON-able data."""
        return {**asdict(self), "ratio": self.ratio}


def check_against_runtime(
    path: str | os.PathLike[str], model: Model, inputs: Mapping[str, Any] | None = None, key: int = 0
) -> RuntimeCheck:
    """Runs a model and onnxruntime on the same inputs.

    Args:
      path: the ONNX file `model` was loaded from.
      model: the model that `load` made of it, with no input fixed.
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
        typed = dict(zip(model.input_names, map(np.asarray, model.arrange((), inputs)), strict=True))
        scalars = {s.name for s in model.inputs if s.dtype.kind in "iub" and s.shape in ((), (1,))}
        bound = {name: value for name, value in typed.items() if name in scalars}
        free = {name: value for name, value in typed.items() if name not in scalars}
        ready = model.bind(**bound) if bound else model
    # The model runs first: it applies the limits that the runtime does not have
    arrays = ready.arrange((), free)
    start = time.perf_counter()
    run_model = _compiled(ready, arrays)
    compile_seconds = time.perf_counter() - start
    result = run_model()
    expected, run_reference, runtime = _reference(path, model, {**free, **bound})
    run_seconds, runtime_seconds = _shortest_times(lambda: jax.block_until_ready(run_model()), run_reference)
    outputs = result if len(model.outputs) > 1 else (result,)
    types = {*(leaf.dtype for leaf in jax.tree.leaves(model.params)), *(spec.dtype for spec in model.inputs)}
    checks = tuple(
        compare_output(name, output, reference, types)
        for spec, value, values in zip(model.outputs, outputs, expected, strict=True)
        for name, output, reference in _pairs(spec.name, value, _plain(values, spec.name, model))
    )
    return RuntimeCheck(
        runtime=runtime,
        inputs={name: tuple(value.shape) for name, value in free.items()},
        bound={name: value.tolist() for name, value in bound.items()},
        outputs=checks,
        compile_seconds=compile_seconds,
        run_seconds=run_seconds,
        runtime_seconds=runtime_seconds,
        agrees=all(check.agrees for check in checks),
    )


def _compiled(model: Model, arrays: tuple[Any, ...]) -> Callable[[], Any]:
    """Returns a call of the model on the arrays, compiled already."""
    if any(spec.holds_strings for spec in model.inputs):
        model(*arrays)
        return lambda: model(*arrays)
    program = Program(model.apply).lower(model.params, *arrays).compile()
    return lambda: program(model.params, *arrays)


def _pairs(name: str, output: Any, reference: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yields the arrays of an output with the reference's; a sequence has several."""
    if not isinstance(reference, list):
        yield name, output, reference
        return
    for i, entries in enumerate(zip(output, reference, strict=False)):
        yield from _pairs(f"{name}[{i}]", *entries)
    if len(output) != len(reference):
        yield f"{name}: length", len(output), len(reference)


def _plain(output: Any, name: str, model: Model) -> Any:
    """Returns an output of the reference as arrays; a list of dictionaries by label becomes a matrix, as in ZipMap."""
    if not (isinstance(output, list) and output and isinstance(output[0], dict)):
        return output
    graph = model.conversion.source if model.conversion else None
    tables = (node.attributes for node in graph.nodes if name in node.outputs) if graph else ()
    labels = next((tuple(v) for table in tables for v in table.values() if isinstance(v, tuple)), tuple(output[0]))
    return np.asarray([[row[label] for label in labels] for row in output])


def _reference(
    path: str | os.PathLike[str], model: Model, feed: Mapping[str, np.ndarray]
) -> tuple[list[Any], Callable[[], list[Any]], str]:
    """Returns the outputs of onnxruntime on `feed`, a function that calls it, and its name.

    It is given bytes and never a path, since it would follow hard links out of the folder.
    """
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
    options.log_severity_level = 4  # errors are raised as exceptions too
    name, feed, providers = f"onnxruntime {onnxruntime.__version__}", dict(feed), ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(data, options, providers=providers)
        outputs = session.run(None, feed)
        if model.conversion and any(_QUANTISED.search(node.op) for node in model.conversion.source.walk()):
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            outputs = onnxruntime.InferenceSession(data, options, providers=providers).run(None, feed)
            name += " without graph optimisations"
    except Exception as error:  # onnxruntime's exceptions have no common base class
        raise UnsupportedModelError(
            "The reference runtime must run the model", got=str(error).splitlines()[0][:300], where=str(file)
        ) from error
    return list(outputs), lambda: list(session.run(None, feed)), name


def _shortest_times(*calls: Callable[[], Any]) -> tuple[float, ...]:
    """Returns the shortest of several times of each call, run in turn so that the machine's load affects all alike."""
    best = [math.inf] * len(calls)
    for _ in range(_RUNS):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - start)
    return tuple(best)
