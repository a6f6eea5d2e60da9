"""Fuzz targets: whatever the bytes, only our errors may be raised, in time and within memory."""

import io
import tempfile
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from modeldiff_jax.errors import ModelDiffError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.array_file import read_arrays
from modeldiff_jax.models.convert import to_model
from modeldiff_jax.models.files import HEAD_BYTES
from modeldiff_jax.models.inputs.sizes import resolve
from modeldiff_jax.models.model import Origin
from modeldiff_jax.models.onnx import read_graph
from modeldiff_jax.models.onnx.initializers import split_initializers
from modeldiff_jax.models.weights.safetensors import is_safetensors, read_safetensors
from modeldiff_jax.models.weights.torch_file import is_torch, read_torch
from modeldiff_jax.models.zip_archive import ZipArchive

# Small bounds, so that a lucky number costs little
SMALL = Limits(
    made_elements=10**5, folded_bytes=10**6, tensor_elements=10**6, loop_trips=20, traced_calls=2000, seed_bytes=10**6
)


def same_when_put_back(data):
    """Returns whether bytes are a model; if so, splitting off and restoring its weights gives the same one."""
    split = split_initializers(io.BytesIO(data), len(data), "fuzz", smallest=1)
    try:
        whole = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RecursionError):
        return False
    proto = onnx.load_model_from_string(split.message)
    for i, raw in split.raw_data.items():
        proto.graph.initializer[i].raw_data = raw.tobytes()
    assert proto.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)
    return True


def reader(data, folder=None):
    """Reads ONNX bytes as a graph."""
    same_when_put_back(data)
    try:
        graph = read_graph(data, folder=folder, limits=SMALL)
    except ModelDiffError:
        return None
    assert graph.outputs
    return graph


def conversion(data):
    """Reads ONNX bytes as a model with sizes for its inputs, folded and traced."""
    try:
        graph = read_graph(data, limits=SMALL)
        return resolve(to_model(graph, Origin("fuzz", "onnx"), SMALL)).model
    except ModelDiffError:
        return None


def archives(data):
    """Reads bytes as entries of a zip archive, each whole, and arrays of a `.npy` or `.npz` file."""
    try:
        archive = ZipArchive(io.BytesIO(data), SMALL, "seed_bytes", "fuzz")
        entries = [archive.read(entry) for entry in archive.entries]
    except ModelDiffError:
        entries = None
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            arrays = read_arrays(Path(file.name), SMALL, "seed_bytes")
        except ModelDiffError:
            arrays = None
    for arrays_read in (entries or [], (arrays or {}).values()):
        assert sum(array.nbytes for array in arrays_read) <= SMALL.seed_bytes
    return entries, arrays


def weights(data):
    """Reads bytes as arrays, all of which can be read to their last element."""
    stream = io.BytesIO(data)
    try:
        if is_safetensors(data[:HEAD_BYTES]):
            arrays = read_safetensors(stream, SMALL, "fuzz")
        elif is_torch(data[:HEAD_BYTES]):
            arrays = read_torch(stream, SMALL, "fuzz")
        else:
            return None
    except ModelDiffError:
        return None
    for array in arrays.values():
        assert array.size <= SMALL.tensor_elements
        array.tobytes()
    return arrays
