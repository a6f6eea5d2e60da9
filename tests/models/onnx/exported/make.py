"""Exports the transformers of `architectures.py` and records what PyTorch gives for them.

    pip install torch onnxscript
    python -m tests.models.onnx.exported.make

writes `<architecture>-<exporter>-<opset>.onnx` and `<architecture>.npz` beside this file. The tests read these files
without PyTorch; `test_exported.py` makes all combinations afresh where PyTorch is at hand.
"""

import io
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch.export import Dim

from tests.models.onnx.exported.architectures import ARCHITECTURES
from tests.models.onnx.exported.inputs import EXPORTED_AT, FIXED, SIZES, example

FOLDER = Path(__file__).parent
COMMITTED = (
    ("gpt", "script", 17),
    ("gpt", "dynamo", 20),
    ("llama", "script", 18),
    ("llama", "dynamo", 18),
    ("llama", "dynamo", 23),
    ("bert", "script", 17),
    ("bert", "dynamo", 23),
    ("vit", "script", 20),
    ("vit", "dynamo", 22),
)
OUTPUTS = {"gpt": ["logits"], "llama": ["logits"], "bert": ["hidden", "logits"], "vit": ["logits"]}


def module(name):
    """One architecture with weights that depend on nothing but its name."""
    torch.manual_seed(sum(name.encode()))
    return ARCHITECTURES[name]().eval()


def tensors(feeds):
    """Inputs as PyTorch takes them."""
    return tuple(torch.from_numpy(np.array(value)) for value in feeds.values())


def run(model, feeds):
    """Returns the outputs of PyTorch as a list."""
    with torch.no_grad():
        given = model(*tensors(feeds))
    return [part.numpy() for part in (given if isinstance(given, tuple) else (given,))]


def axes_of(name, exporter):
    """Input name -> its dynamic axes by name."""
    if (name, exporter) in FIXED:
        return {}
    known = {
        "input_ids": ("batch", "length"),
        "token_type_ids": ("batch", "length"),
        "position_ids": ("batch", "length"),
        "attention_mask": ("batch", "length" if name == "bert" else "whole"),
        "pixel_values": ("batch",),
    }
    cached = {0: "batch", 2: "seen"}
    return {key: dict(enumerate(known[key])) if key in known else cached for key in example(name, *EXPORTED_AT)}


def export(model, name, exporter, opset):
    """A ModelProto of a module, all sizes dynamic."""
    feeds, axes = example(name, *EXPORTED_AT), axes_of(name, exporter)
    outputs = OUTPUTS[name] + [key.replace("past", "present") for key in feeds if key.startswith("past")]
    names = {"input_names": list(feeds), "output_names": outputs}
    stream = io.BytesIO()
    with warnings.catch_warnings():  # noqa: TID251  # a script of one thread
        warnings.simplefilter("ignore")  # of the exporters' own
        logging.disable(logging.WARNING)
        if exporter == "script":
            torch.onnx.export(
                model, tensors(feeds), stream, dynamo=False, opset_version=opset, dynamic_axes=axes, **names
            )
        else:
            # a size that is a sum of two others has no name of its own
            own = {axis: Dim(axis, min=1, max=64) for axis in ("batch", "length", "seen")} | {"whole": Dim.AUTO}
            shapes = [{at: own[axis] for at, axis in places.items()} for places in axes.values()]
            plain = [i for i, key in enumerate(feeds) if not key.startswith("past")]
            past = tuple(shape for i, shape in enumerate(shapes) if i not in plain)
            dynamic = (*(shapes[i] for i in plain), *([past] if past else []))
            program = torch.onnx.export(
                model, tensors(feeds), dynamo=True, opset_version=opset, dynamic_shapes=dynamic, verbose=False, **names
            )
            program.save(stream)
        logging.disable(logging.NOTSET)
    return stripped(onnx.load_model_from_string(stream.getvalue()))


def stripped(proto):
    """Without the exporter's notes, which hold a stack trace of the machine's files for every node."""
    for graph in [proto.graph, *proto.functions]:
        for part in [graph, *graph.node, *graph.value_info]:
            part.ClearField("doc_string")
            part.ClearField("metadata_props")
    for part in [*proto.graph.input, *proto.graph.output, *proto.graph.initializer]:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return proto


def main():
    """Writes all files."""
    for name, exporter, opset in COMMITTED:
        proto = export(module(name), name, exporter, opset)
        file = FOLDER / f"{name}-{exporter}-{opset}.onnx"
        file.write_bytes(proto.SerializeToString())
        print(f"{file.name}: {file.stat().st_size:,} bytes")
    for name in ARCHITECTURES:
        given = {}
        for size in (EXPORTED_AT, *SIZES):
            for i, value in enumerate(run(module(name), example(name, *size))):
                given["-".join(map(str, (*size, i)))] = value
        np.savez_compressed(FOLDER / f"{name}.npz", **given)


if __name__ == "__main__":
    main()
