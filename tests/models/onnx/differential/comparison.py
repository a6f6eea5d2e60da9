"""A variation under onnxruntime and under this package, and how the results differ."""

import jax
import numpy as np

from modeldiff_jax.errors import ModelDiffError
from modeldiff_jax.models.graph.registry import lookup
from modeldiff_jax.models.onnx import backend
from modeldiff_jax.models.onnx.reader import read_graph

_TOLERANCE = {np.dtype(np.float64): 1e-6, np.dtype(np.float32): 2e-4, np.dtype(np.float16): 4e-3}


def difference(want, got):
    """In words how results differ: in number, type, shape or values; `None` where they do not."""
    if len(want) != len(got):
        return f"{len(got)} outputs for {len(want)}"
    for i, (theirs, ours) in enumerate(zip(want, got, strict=True)):
        if isinstance(theirs, list):
            off = difference(theirs, ours)
            if off is not None:
                return f"sequence {i}: {off}"
            continue
        theirs, ours = np.asarray(theirs), np.asarray(ours)
        if ours.dtype.itemsize == 1 and theirs.dtype == np.uint8 and ours.dtype.kind in "fV":
            ours = ours.view(np.uint8)  # onnxruntime's binding has no types of 8-bit floats
        if ours.dtype != theirs.dtype:
            return f"type of output {i}: {ours.dtype} for {theirs.dtype}"
        if ours.shape != theirs.shape:
            return f"shape of output {i}: {ours.shape} for {theirs.shape}"
        off = _off(theirs, ours)
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
    at = np.unravel_index(np.argmax(wrong), want.shape)
    return f"{int(np.sum(wrong))} of {want.size}, {got[at]!r} for {want[at]!r}"


def concrete(model, feeds):
    """Outputs with all inputs known."""
    return list(backend.prepare(model).run(feeds))


def traced(model, feeds):
    """Outputs under `jax.jit`, with every input traced that need not be known; `None` where there is none such."""
    graph = read_graph(model.SerializeToString())
    (node,) = graph.nodes
    found = lookup(node)
    static = {name for i, name in enumerate(node.inputs) if name and found.is_static(i)}
    strings = {name for name, value in feeds.items() if value.dtype.kind == "O"}
    if not feeds.keys() - static - strings or strings - static or found.all_inputs_static or node.subgraphs:
        return None
    with jax.enable_x64(True):
        whole = backend.prepare(model).model
        bound = whole.bind(**{name: feeds[name] for name in static}) if static else whole
        results = jax.jit(bound.apply)(bound.params, *(value for name, value in feeds.items() if name not in static))
        return [np.asarray(value) for value in (results if isinstance(results, tuple) else (results,))]


def compare(variation, runtime):
    """What onnxruntime did, and then how this package differs, or `None`."""
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
