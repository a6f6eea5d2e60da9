"""A variation under onnxruntime and under this package, and how the results differ."""

import jax
import numpy as np

from modeldiff_jax.errors import ModelDiffError
from modeldiff_jax.models.graph.registry import lookup
from modeldiff_jax.models.onnx import backend
from modeldiff_jax.models.onnx.reader import read_graph

_TOLERANCE = {np.dtype(np.float64): 1e-6, np.dtype(np.float32): 2e-4, np.dtype(np.float16): 4e-3}


def difference(want, got):
    """Describes how results differ: in number, type, shape or values; `None` where they do not."""
    if len(want) != len(got):
        return f"{len(got)} outputs for {len(want)}"
    for i, (reference, output) in enumerate(zip(want, got, strict=True)):
        if isinstance(reference, list):
            off = difference(reference, output)
            if off is not None:
                return f"sequence {i}: {off}"
            continue
        reference, output = np.asarray(reference), np.asarray(output)
        if output.dtype.itemsize == 1 and reference.dtype == np.uint8 and output.dtype.kind in "fV":
            output = output.view(np.uint8)  # onnxruntime's binding has no types of 8-bit floats
        if output.dtype != reference.dtype:
            return f"type of output {i}: {output.dtype} for {reference.dtype}"
        if output.shape != reference.shape:
            return f"shape of output {i}: {output.shape} for {reference.shape}"
        off = _off(reference, output)
        if off is not None:
            return f"values of output {i}: {off}"
    return None


def _off(want, got):
    if want.dtype not in _TOLERANCE:
        wrong = want != got
    else:
        rtol = _TOLERANCE[want.dtype]
        finite = np.abs(want[np.isfinite(want)])
        atol = rtol / 10 * float(finite.max(initial=0))
        wrong = ~np.isclose(got.astype(np.float64), want.astype(np.float64), rtol, atol, equal_nan=True)
    if not np.any(wrong):
        return None
    position = np.unravel_index(np.argmax(wrong), want.shape)
    return f"{int(np.sum(wrong))} of {want.size}, {got[position]!r} for {want[position]!r}"


def concrete(model, feeds):
    """Outputs with all inputs known."""
    return list(backend.prepare(model).run(feeds))


def traced(model, feeds):
    """Outputs under `jax.jit`, with every input traced that need not be known; `None` where there is none such."""
    graph = read_graph(model.SerializeToString())
    (node,) = graph.nodes
    result = lookup(node)
    static = {name for i, name in enumerate(node.inputs) if name and result.is_static(i)}
    strings = {name for name, value in feeds.items() if value.dtype.kind == "O"}
    if not feeds.keys() - static - strings or strings - static or result.all_inputs_static or node.subgraphs:
        return None
    with jax.enable_x64(True):
        whole = backend.prepare(model).model
        bound = whole.bind(**{name: feeds[name] for name in static}) if static else whole
        results = jax.jit(bound.apply)(bound.params, *(value for name, value in feeds.items() if name not in static))
        return [np.asarray(value) for value in (results if isinstance(results, tuple) else (results,))]


def compare(variation, runtime):
    """Returns the outcome of onnxruntime, and how this package differs from it, or `None`."""
    model = variation.model()
    verdict, want = runtime.run(model.SerializeToString(), variation.feeds)
    if verdict != "ran":
        return verdict, None
    for name, evaluate in (("concrete", concrete), ("traced", traced)):
        if evaluate is traced and any(isinstance(value, list) for value in want):
            continue  # a function under `jit` gives a sequence as a tuple
        try:
            got = evaluate(model, variation.feeds)
        except ModelDiffError as error:
            return "compared", f"{name}: refused: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if got is not None:
            off = difference(want, got)
            if off is not None:
                return "compared", f"{name}: {off}"
    return "compared", None
