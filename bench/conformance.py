"""How much of ONNX's backend test suite passes: eagerly, with every array input traced, and in its gradients.

    python -m bench.conformance [pattern] [--write]

- *passes*: operators run one by one on concrete inputs, as the Backend API does.
- *passes traced*: one `jax.jit` of the whole model with every input traced, cases that need a value while
  tracing fail. Inputs of strings cannot be traced; such cases count as not passing.
- *gradients*: of the cases that pass traced and have float inputs and outputs, how many have a derivative equal to the
  central difference: all float inputs moved along a random direction, everything in float64.

Failures are counted by cause. `--write` records a whole run in `bench/results/conformance.json`.
"""

from __future__ import annotations

import argparse
import json
import re
import warnings
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import measure
from bench.onnx_suite import Case, cases
from modeldiff_jax.errors import ModelDiffError, NotStaticError, UnsupportedModelError
from modeldiff_jax.models.onnx import backend
from modeldiff_jax.runtime import x64

STEP = 1e-6
TOLERANCE = 1e-4
_KEPT = 50
"""Cases whose compiled programs are kept at a time, to save memory."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default="", help="only cases whose name holds this regular expression")
    parser.add_argument("--write", action="store_true", help="record the result under bench/results")
    options = parser.parse_args()
    if options.write and options.pattern:
        parser.error("--write records all cases: leave the pattern out")
    pattern = re.compile(options.pattern)
    table: dict[str, dict[str, int]] = {}
    causes: Counter[str] = Counter()
    for kind, by_name in cases().items():
        chosen = [case for name, case in by_name.items() if pattern.search(name)]
        counts = Counter(cases=len(chosen))
        for i, case in enumerate(chosen, 1):
            counts.update(passes=succeeds(case.run, causes, "eager"))
            if succeeds(lambda case=case: run_traced(case), causes, "traced"):
                counts.update(passes_traced=1)
                gradient = gradient_agrees(case)
                if gradient is not None:
                    counts.update(float_cases=1, gradients_agree=gradient)
            if i % _KEPT == 0:
                jax.clear_caches()
            if i % 200 == 0:
                print(f"{kind}: {i} of {len(chosen)}, {dict(counts)}", flush=True)
        names = ("cases", "passes", "passes_traced", "float_cases", "gradients_agree")
        table[kind] = {name: counts[name] for name in names}
        print(f"{kind:18} " + "  ".join(f"{name} {counts[name]}" for name in names), flush=True)
    result = {"kinds": table, "not_passing_by_cause": dict(causes.most_common())}
    print(json.dumps(result["not_passing_by_cause"], indent=2))
    if options.write:
        print(measure.record("conformance", result, ("jax", "numpy", "onnx"), "conformance"))


def succeeds(run: Any, causes: Counter[str], mode: str) -> bool:
    """Returns whether `run` succeeds; counts its exception otherwise."""
    with warnings.catch_warnings():  # noqa: TID251  # one thread; the cases' own warnings
        warnings.simplefilter("ignore")
        try:
            run()
        except Exception as error:
            causes[f"{mode}: {cause(error)}"] += 1
            return False
    return True


def cause(error: Exception) -> str:
    """Returns the cause of a failure, the same for cases that fail in the same way."""
    match error:
        case NotStaticError():
            match = re.search(r"input (\d+) .* of (\w+)", error.got)
            return f"input {match[1]} of {match[2]} must be known while tracing" if match else f"{error.rule}"
        case ModelDiffError():
            return error.rule
        case AssertionError():
            return "other values than expected"
    return type(error).__name__


def run_traced(case: Case) -> None:
    """Raises where the jitted model does not run, or gives other values than the case expects."""
    model = backend.prepare(case.model).model
    compiled = jax.jit(model.apply)
    for inputs, outputs in case.data_sets:
        got = compiled(model.params, *map(as_jax, inputs))
        results = got if len(model.outputs) > 1 else (got,)
        case.compare(outputs, list(map(as_numpy, results)))


def as_jax(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(as_jax, value))
    if isinstance(value, np.ndarray) and value.dtype == object:
        raise UnsupportedModelError("Strings are not traced")
    return None if value is None else x64.as_array(value)


def as_numpy(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(map(as_numpy, value))
    return None if value is None else np.asarray(value)


def is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype in (np.float16, np.float32, np.float64) and value.size > 0


def gradient_agrees(case: Case) -> bool | None:
    """Returns whether the derivative along a random direction is the central difference; None without floats."""
    inputs, outputs = case.data_sets[0]
    if any(isinstance(v, list) for v in (*inputs, *outputs)):
        return None
    moved = [i for i, value in enumerate(inputs) if is_float(value)]
    if not moved or not any(map(is_float, outputs)):
        return None
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        model = backend.prepare(case.model).model
        start = [jnp.asarray(v, jnp.float64) if i in moved else as_jax(v) for i, v in enumerate(inputs)]
        direction = {i: jnp.asarray(rng.standard_normal(inputs[i].shape)) for i in moved}
        weights = [jnp.asarray(rng.standard_normal(np.shape(v))) if is_float(v) else None for v in outputs]

        def total(shift: Any) -> Any:
            """Returns a random sum of the float outputs at shifted inputs."""
            shifted = [v + shift[i] if i in shift else v for i, v in enumerate(start)]
            results = model.apply(model.params, *shifted)
            results = results if isinstance(results, tuple) else (results,)
            pairs = zip(weights, results, strict=True)
            return sum(jnp.sum(w * y) for w, y in pairs if w is not None)

        @jax.jit
        def derivatives() -> tuple[Any, Any]:
            slopes = jax.grad(total)({i: jnp.zeros_like(v) for i, v in direction.items()})
            above, below = (total({i: s * STEP * v for i, v in direction.items()}) for s in (1, -1))
            return sum(jnp.vdot(slopes[i], v) for i, v in direction.items()), (above - below) / (2 * STEP)

        try:
            slope, numeric = map(float, derivatives())
        except Exception:  # a gradient that cannot be taken counts as one that does not match
            return False
    return bool(abs(slope - numeric) <= TOLERANCE * (1 + abs(numeric)))


if __name__ == "__main__":
    main()
